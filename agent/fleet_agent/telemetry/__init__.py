"""What is told about all that is here: `/status` and `/metrics`. It is made when asked for, out of what others
count.
"""
