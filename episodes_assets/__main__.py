"""`python -m episodes_assets` is the `episodes` command."""

from episodes_assets.commands.app import main

if __name__ == "__main__":
    main()
