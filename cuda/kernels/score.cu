// Scores of int8 rows under heads of any kind: vectors, tables of columns, symmetric
// trees, and sets of heads reduced to one score.
//
// The ladder:
//
//   dots_int8      the integer products of up to 8 heads with every row, dots_many of up to
//                  64: many.cu
//   finish         a thread a row: for each set, each head's sum in the order of
//                  index/rows (vector, tables, trees, bias), reduced and rounded once
//   histogram      refine of scan.cu, after 0 bits, on what finish wrote
//
// A score is the CPU's to the bit: the products are integers, and each step after
// them is one rounded operation in double, in the same order.
//
// Bytes and operations a row of dim 384, H heads with vectors, C columns, T trees of
// depth D, S sets. dots_int8: 384 read and 4 H written. finish:
// 4 H + 4 + 2 C read, 4 S written, H C + H T additions in double, H T D look-ups of a
// byte, which the first-level cache holds. The columns of an additive head are
// bandwidth; a hundred trees are bound by look-ups.

#include "rows.cuh"

// What a set of heads is, as cuda/scan writes it: ints, and where in the ints and the
// doubles its parts begin.
struct SetOf {
    int first, count, common, reduce, top; // heads; common is a head or -1
};
struct HeadOf {
    int dot;               // which row of dots, or -1
    int scale, bias;       // places among the doubles
    int table, table_end;  // numbers of tables and trees
    int tree, tree_end;
};
struct TableOf {
    int column, values; // values: a place among the doubles, by bin
};
struct TreeOf {
    int split, split_end, leaves; // leaves: a place among the doubles
};
struct SplitOf {
    int column, answers; // answers: a place among the bytes, by bin
};

enum { reduce_max = 0, reduce_mean = 1, reduce_top = 2 };

// finish scores rows [0, n).
//   dots     [vectors, n], as dots_int8 writes them
//   scales   [n]
//   mask     [(n + 63) / 64] bits: rows that count
//   columns  [columns] addresses of bins, [n] shorts each
//   plan     ints: six places (number of sets; where sets, heads, tables, trees,
//            splits begin), then these as the structures above
//   values   doubles; answers: bytes: a bit of a leaf's number, or 0
//   scores   [sets, pitch], of which n are written: -Inf for rows that don't count
// Blocks of 128 threads; dynamic shared memory: blockDim.x * 8 * most, the most that a
// set's top is.
KERNEL(finish)(const int *dots, const float *scales, const unsigned long long *mask, const unsigned long long *columns, const int *plan,
               const double *values, const unsigned char *answers, float *scores, long long n, long long pitch) {
    DYNAMIC_SHARED(double, best); // [most][threads]
    double *mine = best + threadIdx.x;
    const int count = plan[0], threads = blockDim.x;
    const SetOf *sets = reinterpret_cast<const SetOf *>(plan + plan[1]);
    const HeadOf *heads = reinterpret_cast<const HeadOf *>(plan + plan[2]);
    const TableOf *tables = reinterpret_cast<const TableOf *>(plan + plan[3]);
    const TreeOf *trees = reinterpret_cast<const TreeOf *>(plan + plan[4]);
    const SplitOf *splits = reinterpret_cast<const SplitOf *>(plan + plan[5]);
    const double infinity = __longlong_as_double(0x7ff0000000000000ll);
    for (long long row = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; row < n; row += gridDim.x * static_cast<long long>(blockDim.x)) {
        if (!(mask[row >> 6] >> (row & 63) & 1)) {
            for (int s = 0; s < count; s++) scores[s * pitch + row] = -__int_as_float(0x7f800000);
            continue;
        }
        const float scale = scales[row];
        const auto bin = [&](int column) { return reinterpret_cast<const unsigned short *>(columns[column])[row]; };
        const auto head = [&](const HeadOf &h) {
            double x = 0;
            if (h.dot >= 0) x = part(dots[h.dot * n + row], scale, values[h.scale]);
            for (int t = h.table; t < h.table_end; t++) x = __dadd_rn(x, values[tables[t].values + bin(tables[t].column)]);
            for (int t = h.tree; t < h.tree_end; t++) {
                int leaf = 0;
                for (int s = trees[t].split; s < trees[t].split_end; s++) leaf |= answers[splits[s].answers + bin(splits[s].column)];
                x = __dadd_rn(x, values[trees[t].leaves + leaf]);
            }
            const double bias = values[h.bias];
            if (bias != 0) x = __dadd_rn(x, bias);
            return x;
        };
        for (int s = 0; s < count; s++) {
            const SetOf set = sets[s];
            double x = 0;
            if (set.count == 1 && set.reduce != reduce_top) {
                x = head(heads[set.first]);
            } else if (set.reduce == reduce_top) {
                for (int k = 0; k < set.top; k++) mine[k * threads] = -infinity;
                for (int h = 0; h < set.count; h++) {
                    const double y = head(heads[set.first + h]);
                    int k = set.top - 1;
                    if (!(y > mine[k * threads])) continue;
                    for (; k > 0 && mine[(k - 1) * threads] < y; k--) mine[k * threads] = mine[(k - 1) * threads];
                    mine[k * threads] = y;
                }
                for (int k = 0; k < set.top; k++) x = __dadd_rn(x, mine[k * threads]);
                x = __ddiv_rn(x, static_cast<double>(set.top));
            } else {
                double top = -infinity, sum = 0;
                for (int h = 0; h < set.count; h++) {
                    const double y = head(heads[set.first + h]);
                    if (y > top) top = y;
                    sum = __dadd_rn(sum, y);
                }
                x = set.reduce == reduce_mean ? __ddiv_rn(sum, static_cast<double>(set.count)) : top;
            }
            if (set.common >= 0) x = __dadd_rn(x, head(heads[set.common]));
            scores[s * pitch + row] = rounded(x);
        }
    }
}
