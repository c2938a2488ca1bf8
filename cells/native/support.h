// What the programs of all cells share: the product of matrices, and the threads.

#pragma once

extern "C" {

// sum[row][place[n]] += sum over k of left[row][k] * right[k][n], for N vectors n: rows of `left` and `sum` lie
// `left_stride` and `sum_stride` floats apart, `right` is packed as [depth][N][LANES].
#define MULTIPLY(N)                                                                                          \
  void multiply##N(long rows, long depth, const float* left, long left_stride, const float* right, float* sum, \
                   long sum_stride, const int* place);
MULTIPLY(1) MULTIPLY(2) MULTIPLY(3) MULTIPLY(4)
#undef MULTIPLY

// Calls `function(argument, 0)` to `function(argument, parts - 1)` on the caller's thread and `threads - 1`
// others. Parts may wait for each other where there are no more of them than threads: they are begun in order,
// and those of an earlier call first.
void in_parallel(int threads, int parts, void (*function)(void*, int), void* argument);
}

// Numbers too small for a normalised float count as 0, as in TensorFlow's own threads: they are slow.
struct FlushDenormals {
#if defined(__x86_64__)
  unsigned before = __builtin_ia32_stmxcsr();
  FlushDenormals() { __builtin_ia32_ldmxcsr(before | 0x8040); }
  ~FlushDenormals() { __builtin_ia32_ldmxcsr(before); }
#endif
};
