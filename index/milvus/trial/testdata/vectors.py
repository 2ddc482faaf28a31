"""The files that file_test.go reads, written by NumPy (2.4): python vectors.py DIR."""
import pathlib, sys
import numpy as np

out = pathlib.Path(sys.argv[1])
x = (np.arange(15, dtype="<f4") + np.tile([0.5, -2, 0], 5)).reshape(5, 3).astype("<f4")
x[2] = 0
np.lib.format.write_array(open(out / "v1.npy", "wb"), x, version=(1, 0))
np.lib.format.write_array(open(out / "v2.npy", "wb"), x, version=(2, 0))
np.save(out / "f8.npy", x.astype("<f8"))
np.save(out / "fortran.npy", np.asfortranarray(x))
np.save(out / "line.npy", x[0])
with open(out / "v.fvecs", "wb") as f:
    for row in x:
        f.write(np.int32(len(row)).tobytes() + row.tobytes())
