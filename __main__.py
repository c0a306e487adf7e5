"""`python -m valueshift`, which is also what `accelerate launch -m valueshift` runs."""

from .cli import main

if __name__ == "__main__":
    main()
