"""The tuned kernels: each yields the NumPy calls that compute it, on views that are made once.

A `Call` is a `functools.partial` of a NumPy function and its arrays. A kernel here is a generator of calls, so that a whole net
becomes one list of them, and a run is `for call in calls: call()`. What a kernel computes is said by the plain kernel of the same
file name one folder up; tests hold the two against each other.

Arrays are pixel-wise, n x H x W x C, so that the channels of one pixel lie side by side; everything is float32.
"""
