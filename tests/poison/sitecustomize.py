"""Makes the decoder die on purpose; on the path of a decoder process, Python imports this at start.

A photo that ends in `POISON:` and a word meets what a fault in native code would do.
"""

import sys

if "dedup_job.io.decoder_process" in sys.orig_argv:
    import ctypes

    import cv2

    decode = cv2.imdecode

    def imdecode(data, flags):
        word = bytes(data[-32:]).rpartition(b"POISON:")[2]
        if word == b"crash":
            ctypes.string_at(0)
        elif word == b"abort":
            ctypes.CDLL(None).abort()
        elif word == b"hang":
            while True:
                ctypes.CDLL(None).pause()
        elif word == b"fault":
            raise ZeroDivisionError("a fault of ours")
        elif word == b"memory":
            bytearray(1 << 40)
        return decode(data, flags)

    cv2.imdecode = imdecode
