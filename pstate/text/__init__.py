"""The state as text: values, documents and records as YAML, and comments kept. This wing knows no file."""
