"""The commands of `picketctl`, a module for each kind; cli.py puts them together.

A module has `add(commands)`, which declares its commands, and a function for each, which does the
work and returns the exit status. What is printed goes through output.py.
"""
