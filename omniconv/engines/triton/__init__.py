"""Kernels for graphics processors, in the language of Triton. Imported only by an engine that runs one.

On a machine without such a processor they run in Triton's interpreter, which the environment variable
TRITON_INTERPRET=1 switches on: slow, and right to the last digit that float32 has.
"""
