"""Reads the results of `make bench-check` and stops where an answer is wrong; the
comparisons have compared ids, vectors and scores themselves. No time is looked at.

    python check.py DIR COMPARISON...
"""
import json, pathlib, sys


def lookalike(r):
    for name, part in r["parts"].items():
        c = part["correctness"]
        yield c["scores_equal_exact_bit_for_bit"] and c["members_equal_exact_in_order"], f"{name}: {part['rows']} scores and the members equal NumPy's exact ones: recall 1"
        yield c["members_in_common_with_numpy_fp32"] >= 0.999, f"{name}: {c['members_in_common_with_numpy_fp32']:.5f} of the members in common with NumPy in fp32"
        if "many_in_one_pass" in part:
            m = part["many_in_one_pass"]
            yield m["all_equal_lists_made_alone"], f"{name}: {m['audiences']} audiences made in one pass equal those made alone"


def tokenizer(r):
    for run in r["runs"]:
        yield run["ids_identical"] and run["tokens"] > 1000, f"{run['corpus']}, {run['threads']} threads: {run['tokens']} ids identical"


def encoder(r):
    least = {"fp32": 0.999999, "int16": 0.9999, "int8": 0.9}
    for name, cosine in r["minimum_cosine_to_onnxruntime_fp32"].items():
        precision = name.split(" ", 1)[1]
        if precision in least:
            yield cosine >= least[precision], f"{name}: least cosine to ONNX Runtime {cosine}"


def hnsw(r):
    for s in r["search"]:
        if s["against"] == "hnswlib":
            yield s["ours"]["effort"] is not None and s["ours"]["recall"] >= s["target"] - 0.02, f"recall {s['ours']['recall']:.4f} on queries it was not set by, {s['target']} wanted"
    for f in r["filters"]:
        yield f["recall"] >= 0.95, f"filter that lets {f['allowed']:g} through: recall {f['recall']:.4f}"


def milvus(r):
    # bench/milvus ends with an error where our answers and the library's differ
    yield len(r["ratios"]) >= 10, f"{len(r['ratios'])} comparisons with the library, whose answers agree"
    for x in r["indexes"]["results"]:
        yield "problem" not in x and x["recall"] >= 0.95, f"{x['where']}, {x['way']}: recall {x.get('recall')}"


def http(r):
    least = {"fp32": 0.999999, "int16": 0.9999}
    for precision, cosine in r["least_cosine_to_python"].items():
        yield cosine >= least[precision], f"{precision}: least cosine to the Python server {cosine}"
    yield r["vectors_equal_the_engines_bit_for_bit"] == ["base64", "float", "tei"], "every route gives the engine's vectors bit for bit"


def edge(r):
    most = max(s["resident_peak_mb"] for s in r["steps"].values())
    yield most <= r["limit_mb"] and not r["killed_by_the_kernel"], f"{r['customers']} customers: at most {most} MB of {r['limit_mb']} MB ({r['limit_by']})"
    for n, cores in r["cores_taken_by_threads"].items():
        yield cores <= int(n) + 0.1, f"--threads {n} takes {cores} cores"


def main():
    folder, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
    wrong = 0
    for name in names:
        checks = list(globals()[name](json.loads((folder / (name + ".json")).read_text())))
        if not checks:
            checks = [(False, "nothing was checked")]
        for good, what in checks:
            print("ok  " if good else "FAIL", name, what)
            wrong += not good
    if wrong:
        sys.exit(f"bench-check: {wrong} answers are wrong")


if __name__ == "__main__":
    main()
