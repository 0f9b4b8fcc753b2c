"""`python -m smx` is `smx`."""

from smx.cli import main

if __name__ == "__main__":
    main()
