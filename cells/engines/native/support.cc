// See support.h.

#include "support.h"

#include <pthread.h>

#include "vectors.h"

namespace {

// --- threads

struct Call {
  void (*function)(void*, int);
  void* argument;
  int parts, begun, done;
  Call* next;
};

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t wake = PTHREAD_COND_INITIALIZER, finished = PTHREAD_COND_INITIALIZER;
Call* calls = nullptr;
int workers = 0;

// Does a part of a call; with the lock held, which it lets go meanwhile.
void do_part(Call* call) {
  int part = call->begun++;
  if (call->begun == call->parts)
    for (Call** link = &calls; *link; link = &(*link)->next)
      if (*link == call) {
        *link = call->next;
        break;
      }
  pthread_mutex_unlock(&lock);
  call->function(call->argument, part);
  pthread_mutex_lock(&lock);
  if (++call->done == call->parts) pthread_cond_broadcast(&finished);
}

void* work(void*) {
  FlushDenormals flush;
  pthread_mutex_lock(&lock);
  while (true) {
    while (!calls) pthread_cond_wait(&wake, &lock);
    do_part(calls);
  }
}

// After a fork the child has no workers.
void forget_workers() {
  pthread_mutex_init(&lock, nullptr);
  pthread_cond_init(&wake, nullptr);
  pthread_cond_init(&finished, nullptr);
  calls = nullptr;
  workers = 0;
}

struct AtFork {
  AtFork() { pthread_atfork(nullptr, nullptr, forget_workers); }
} at_fork;

// --- matrix products

// Bytes of `right` in use at a time. Smaller slices stay in a smaller cache, but load and store the sums more
// often: 24 KB is 1.04 times slower (LSTM of 64 to 1024 units, batch 8 to 64).
constexpr long CACHE = 98304;

// sum[row][place[n]] += left[row] * right[n] for R rows and N vectors, over `depth`.
template <int R, int N>
void multiply_rows(long depth, const Number* left, long left_stride, const Number* right, Number* sum,
                   long sum_stride, const int* place) {
  constexpr int FREE = SUMS_IN_REGISTERS / (R * N), WAYS = FREE > 4 ? 4 : FREE;  // against latency
  Vector sums[WAYS][R][N];
  for (int way = 0; way < WAYS; way++)
    for (int row = 0; row < R; row++)
      for (int n = 0; n < N; n++)
        sums[way][row][n] = way ? Vector{} : load(sum + row * sum_stride + place[n]);
  long k = 0;
  for (; k + WAYS <= depth; k += WAYS, right += WAYS * N * LANES)
#pragma GCC unroll 4
    for (int way = 0; way < WAYS; way++)
#pragma GCC unroll 16
      for (int row = 0; row < R; row++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++)
          sums[way][row][n] += left[row * left_stride + k + way] * load(right + (way * N + n) * LANES);
  for (; k < depth; k++, right += N * LANES)
    for (int row = 0; row < R; row++)
      for (int n = 0; n < N; n++) sums[0][row][n] += left[row * left_stride + k] * load(right + n * LANES);
  for (int row = 0; row < R; row++)
    for (int n = 0; n < N; n++) {
      Vector total = sums[0][row][n];
      for (int way = 1; way < WAYS; way++) total += sums[way][row][n];
      store(sum + row * sum_stride + place[n], total);
    }
}

// The same for any number of rows.
template <int N>
void multiply(long rows, long depth, const Number* left, long left_stride, const Number* right, Number* sum,
              long sum_stride, const int* place) {
  constexpr int MOST = SUMS_IN_REGISTERS / N > 8 ? 8 : SUMS_IN_REGISTERS / N;
  constexpr long CACHED = CACHE / (N * LANES * sizeof(Number));
  if (!depth || !rows) return;
  long tiles = (rows + MOST - 1) / MOST, slices = (depth + CACHED - 1) / CACHED;
  for (long slice = 0; slice < slices; slice++) {
    long begin = depth * slice / slices, size = depth * (slice + 1) / slices - begin;
    for (long tile = 0; tile < tiles; tile++) {
      long first = rows * tile / tiles;
      const Number* from = left + first * left_stride + begin;
      const Number* with = right + begin * N * LANES;
      Number* to = sum + first * sum_stride;
      switch (rows * (tile + 1) / tiles - first) {
#define ROWS(R)                                                                                \
  case R:                                                                                      \
    if constexpr (R <= MOST)                                                                   \
      multiply_rows<R, N>(size, from, left_stride, with, to, sum_stride, place);               \
    break;
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8)
#undef ROWS
      }
    }
  }
}

// sum[row][sum_place[n]] += left[k][row] * right[k][place[n]] for R rows and N vectors, over `depth`.
template <int R, int N>
void multiply_columns(long depth, const Number* left, long left_stride, const Number* right, long right_stride,
                      const long* place, Number* sum, long sum_stride, const long* sum_place) {
  Vector sums[R][N];
  for (int row = 0; row < R; row++)
    for (int n = 0; n < N; n++) sums[row][n] = load(sum + row * sum_stride + sum_place[n]);
  for (long k = 0; k < depth; k++, left += left_stride, right += right_stride)
#pragma GCC unroll 16
    for (int row = 0; row < R; row++)
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) sums[row][n] += left[row] * load(right + place[n]);
  for (int row = 0; row < R; row++)
    for (int n = 0; n < N; n++) store(sum + row * sum_stride + sum_place[n], sums[row][n]);
}

// The same for any number of rows.
template <int N>
void multiply_columns(long rows, long depth, const Number* left, long left_stride, const Number* right,
                      long right_stride, const long* place, Number* sum, long sum_stride, const long* sum_place) {
  constexpr int MOST = SUMS_IN_REGISTERS / N > 8 ? 8 : SUMS_IN_REGISTERS / N;
  const long tiles = (rows + MOST - 1) / MOST;
  for (long tile = 0; tile < tiles; tile++) {
    const long first = rows * tile / tiles;
    switch (rows * (tile + 1) / tiles - first) {
#define ROWS(R)                                                                                                   \
  case R:                                                                                                         \
    if constexpr (R <= MOST)                                                                                      \
      multiply_columns<R, N>(depth, left + first, left_stride, right, right_stride, place, sum + first * sum_stride, \
                             sum_stride, sum_place);                                                              \
    break;
      ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8)
#undef ROWS
    }
  }
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED int fused_rnn_threads(int wanted) {
  pthread_mutex_lock(&lock);
  for (; workers < wanted - 1; workers++) {
    pthread_t thread;
    if (pthread_create(&thread, nullptr, work, nullptr)) break;
    pthread_detach(thread);
  }
  int all = workers + 1;
  pthread_mutex_unlock(&lock);
  return all < wanted ? all : wanted;
}

EXPORTED void fused_rnn_in_parallel(bool alone, int parts, void (*function)(void*, int), void* argument) {
  if (alone || parts <= 1) {
    for (int part = 0; part < parts; part++) function(argument, part);
    return;
  }
  Call call = {function, argument, parts, 0, 0, nullptr};
  pthread_mutex_lock(&lock);
  Call** last = &calls;
  while (*last) last = &(*last)->next;
  *last = &call;
  pthread_cond_broadcast(&wake);
  while (call.begun < call.parts) do_part(&call);
  while (call.done < call.parts) pthread_cond_wait(&finished, &lock);
  pthread_mutex_unlock(&lock);
}

#define MULTIPLY(N)                                                                                          \
  __attribute__((visibility("default"))) void fused_rnn_multiply##N(                                         \
      long rows, long depth, const Number* left, long left_stride, const Number* right, Number* sum,         \
      long sum_stride, const int* place) {                                                                   \
    multiply<N>(rows, depth, left, left_stride, right, sum, sum_stride, place);                              \
  }
MULTIPLY(1) MULTIPLY(2) MULTIPLY(3) MULTIPLY(4)

__attribute__((visibility("default"))) void fused_rnn_multiply_turned(
    int N, long rows, long depth, const Number* left, long left_stride, const Number* right, long right_stride,
    const long* place, Number* sum, long sum_stride, const long* sum_place) {
#define TURNED(COUNT)                                                                                           \
  if (N == COUNT)                                                                                               \
    multiply_columns<COUNT>(rows, depth, left, left_stride, right, right_stride, place, sum, sum_stride, sum_place);
  TURNED(1) TURNED(2) TURNED(3) TURNED(4)
#undef TURNED
}
