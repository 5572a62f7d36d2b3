"""What `make doctor` looks at: each check is a function of the facts that returns a finding."""
