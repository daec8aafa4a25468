"""A whole OpenID Connect provider: Django with django-oauth-toolkit, in a process of its own.

It keeps people with passwords, asks them to log in and to agree, and signs ID tokens with a key made when
it starts. Some of its people get tokens that are wrong in one way each, see `people.py`.
"""
