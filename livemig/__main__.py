"""``python -m livemig``, the same as the console script."""

from livemig.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
