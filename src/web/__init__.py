"""HTTP: requests in, commands and questions on, answers out."""
