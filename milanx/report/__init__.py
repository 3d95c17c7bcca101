"""What people look at: tables in the terminal, the page of a run."""
