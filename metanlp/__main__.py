"""`python -m metanlp`, and `torchrun … -m metanlp compare` on several processes."""

from metanlp.cli import main

if __name__ == "__main__":
    main()
