"""What the doctor looks at on a host, one file a subject. PURE. Each has `judge(chart)`, which yields its findings."""
