"""`ssm-train bench`: time and memory of models by name, against the size of their input."""
