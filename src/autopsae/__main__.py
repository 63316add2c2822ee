"""`python -m autopsae` is the command line."""

from autopsae.cli.main import main

if __name__ == "__main__":
    main()
