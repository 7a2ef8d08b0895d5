"""Tables, documents and progress: what people see of claims, plans, runs and verdicts."""
