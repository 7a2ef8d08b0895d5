"""What is measured: each number a claim can be held against is produced by one function here."""
