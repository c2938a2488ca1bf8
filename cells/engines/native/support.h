// What the programs of all cells share: the product of matrices, and the threads.

#pragma once

#include "vectors.h"

// sum[row][place[n]] += sum over k of left[row][k] * right[k][n], for N vectors n: rows of `left` and `sum` lie
// `left_stride` and `sum_stride` numbers apart, `right` is packed as [depth][N][LANES]. No C: a process may have one of
// floats and one of doubles. Of the threads it has those of whichever comes first.
#define MULTIPLY(N)                                                                                          \
  void fused_rnn_multiply##N(long rows, long depth, const Number* left, long left_stride, const Number* right, \
                             Number* sum, long sum_stride, const int* place);
MULTIPLY(1) MULTIPLY(2) MULTIPLY(3) MULTIPLY(4)
#undef MULTIPLY

// sum[row][sum_place[n]] += sum over k of left[k][row] * right[k][place[n]], for N vectors n, at the most 4: what makes the
// gradient of weights. Nothing is packed; rows of `left`, `right` and `sum` lie as far apart as their strides say.
void fused_rnn_multiply_turned(int N, long rows, long depth, const Number* left, long left_stride, const Number* right,
                               long right_stride, const long* place, Number* sum, long sum_stride,
                               const long* sum_place);

extern "C" {

// Calls `function(argument, 0)` to `function(argument, parts - 1)`, on the caller's thread alone or on it and the
// others of `fused_rnn_threads`. Parts are begun in order, those of an earlier call first, so that some that follow
// on each other may wait for each other if they are no more than the threads.
void fused_rnn_in_parallel(bool alone, int parts, void (*function)(void*, int), void* argument);

// How many threads there are, the caller's with them: as many as wanted, if the system gives them.
int fused_rnn_threads(int wanted);
}

// Numbers too small for a normalised float count as 0, as in TensorFlow's own threads: on x86 they are slow.
struct FlushDenormals {
#if defined(__x86_64__)
  unsigned before = __builtin_ia32_stmxcsr();
  FlushDenormals() { __builtin_ia32_ldmxcsr(before | 0x8040); }
  ~FlushDenormals() { __builtin_ia32_ldmxcsr(before); }
#elif defined(__aarch64__)
  uint64_t before;
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before));
    set(before | 1 << 24);
  }
  ~FlushDenormals() { set(before); }
  static void set(uint64_t control) { asm volatile("msr fpcr, %0" : : "r"(control)); }
#endif
};
