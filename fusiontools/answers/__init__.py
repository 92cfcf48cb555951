"""When do two answers say the same?"""
