"""What is kept where: one module for each thing that is stored, all its SQL included.

A store is handed connections, DSNs or URLs, and decides nothing about a day beyond what it stores.
"""
