"""What runs inside the sandbox of the code grader: the program under test, and its checks."""
