"""What a run says to people: tables on standard output, and a page made for looking."""
