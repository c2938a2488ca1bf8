// The native engine's program for a step of any stages: products with weights, elementwise loops, reductions of rows.
//
// `cells/engines/tracing/stages.py` writes "cell.h" with two steps, `Forward` and `Backward`. Both are run the same way:
// states are carried from step to step, forward in time or back, values are read from stacks [batch, steps, size] and
// written to stacks, and totals are taken over all sequences and steps. A step itself knows nothing of that: it finds
// what it takes, and leaves what it gives, in the memory of a group of sequences. Groups do not wait for each other.

#include "operation.h"

namespace {

// --- what a step is written with

// Where a value lies in a group's memory: after `prefix` numbers for each row of the group, and `skew` more.
struct Place {
  long prefix, skew, stride, size;
  Number* at(Number* memory, long rows, long row = 0) const { return memory + prefix * rows + skew + row * stride; }
};

inline Mask truth(bool value) { return all(value ? -1 : 0); }
inline Mask all_bits(const Number& from) {
  Integer bits;
  memcpy(&bits, &from, sizeof bits);
  return bits - Mask{};
}
// What belongs to the N elements of a row, of a vector that begins at element `begin`.
template <long N, typename Type>
inline void put(Number* to, long begin, Type x) {
  if constexpr (N % LANES == 0)
    store(to + begin, (Vector)x);
  else
    store(to + begin, (Vector)x, N - begin);
}
template <long N>
inline Vector within(long begin, Vector x, Vector neutral) {
  if constexpr (N % LANES == 0) return x;
  for (long lane = N - begin; lane < LANES; lane++) x[lane] = neutral[lane];
  return x;
}
inline Vector gathered(const Number* from, long stride) {
  Vector x;
  for (long lane = 0; lane < LANES; lane++) x[lane] = from[lane * stride];
  return x;
}

inline Number plus(Number a, Number b) { return a + b; }
inline Number times(Number a, Number b) { return a * b; }
inline Number larger(Number a, Number b) { return a > b || a != a ? a : b; }
inline Number smaller(Number a, Number b) { return a < b || a != a ? a : b; }
template <typename Function>
inline Number folded(Vector x, Function function) {
  for (int half = LANES / 2; half; half /= 2)
    for (int lane = 0; lane < half; lane++) x[lane] = function(x[lane], x[lane + half]);
  return x[0];
}

// How many of so many vectors a product takes at a time.
inline long chunk(long vectors) { return vectors == 5 ? 3 : vectors < 4 ? vectors : 4; }

inline long packed_size(long depth, long columns) { return (columns + LANES - 1) / LANES * LANES * depth; }

// The rows of `to`, in whole vectors, as rows of `left` (depth) times packed weights (depth, columns).
void product(long rows, long depth, long columns, const Number* left, long left_stride, const Number* packed, Number* to,
             long to_stride) {
  static const Places<4> in_order;
  const long vectors = (columns + LANES - 1) / LANES;
  for (long row = 0; row < rows; row++) memset(to + row * to_stride, 0, vectors * LANES * sizeof(Number));
  for (long first = 0, n; first < vectors; first += n) {
    n = chunk(vectors - first);
    const Number* right = packed + first * depth * LANES;
    Number* sum = to + first * LANES;
    if (n == 1) multiply<1>(rows, depth, left, left_stride, right, sum, to_stride, in_order.at);
    if (n == 2) multiply<2>(rows, depth, left, left_stride, right, sum, to_stride, in_order.at);
    if (n == 3) multiply<3>(rows, depth, left, left_stride, right, sum, to_stride, in_order.at);
    if (n == 4) multiply<4>(rows, depth, left, left_stride, right, sum, to_stride, in_order.at);
  }
}

#include "cell.h"

// --- how it is run

constexpr double PARALLEL_OPERATIONS = 2e6;  // from which on a call takes several threads, about 20 us of one core
constexpr long GROUP = 32;                   // sequences of a group, at the most

template <typename Step>
struct Run {
  long batch, steps;
  int threads, groups;
  const bool* mask;
  const Number *initial[Step::STATES + 1], *stack[Step::READS + 1], *first[Step::READS + 1];
  const Number *vector[Step::VECTORS + 1], *matrix[Step::MATRICES + 1];
  Number *packed[Step::MATRICES + 1], *written[Step::WRITES + 1], *final[Step::STATES + 1], *sums, *arena;

  // The columns of a weight, for some vectors at a time: [chunk][depth][vector of the chunk][LANES].
  void pack(int n) {
    const long depth = Step::DEPTH[n], columns = Step::COLUMNS[n], vectors = (columns + LANES - 1) / LANES;
    Number* to = packed[n];
    for (long first = 0, count; first < vectors; first += count) {
      count = chunk(vectors - first);
      for (long k = 0; k < depth; k++)
        for (long vector = first; vector < first + count; vector++, to += LANES)
          store(to, load(matrix[n] + k * columns + vector * LANES, columns - vector * LANES));
    }
  }

  bool hidden(long row, long step) const { return mask && !mask[row * steps + step]; }

  void run(int group) {
    const long begin = batch * group / groups, rows = batch * (group + 1) / groups - begin;
    const long size = Step::PER_ROW * rows + Step::FIXED;
    Number* memory = arena + begin * Step::PER_ROW + group * Step::FIXED;
    memset(memory, 0, size * sizeof(Number));
    for (int n = 0; n < Step::VECTORS; n++)
      for (long row = 0; row < (Step::BY_ROW[n] ? rows : 1); row++) {
        const Place& place = Step::VECTOR[n];
        copy(place.at(memory, rows, row), vector[n] + (Step::BY_ROW[n] ? begin + row : 0) * place.size, place.size);
      }
    for (int n = 0; n < Step::STATES; n++)
      for (long row = 0; row < rows; row++) {
        const Place& place = Step::STATE[n];
        copy(place.at(memory, rows, row), initial[n] + (begin + row) * place.size, place.size);
      }
    for (long count = 0; count < steps; count++) {
      const long step = Step::BACK ? steps - 1 - count : count;
      for (int n = 0; n < Step::READS; n++)
        if (stack[n]) read(n, begin, rows, step, memory);
      Step::step(rows, memory, packed);
      for (int n = 0; n < Step::WRITES; n++)
        if (written[n] && !Step::IS_STATE[n]) write(n, begin, rows, step, memory);
      for (long row = 0; row < rows; row++) {
        if (hidden(begin + row, step)) continue;
        for (int n = 0; n < Step::TOTALS; n++) total(n, group, Step::TOTAL[n].at(memory, rows, row));
        for (int n = 0; n < Step::STATES; n++)
          copy(Step::STATE[n].at(memory, rows, row), Step::NEW[n].at(memory, rows, row), Step::STATE[n].size);
      }
      for (int n = 0; n < Step::WRITES; n++)
        if (written[n] && Step::IS_STATE[n]) write(n, begin, rows, step, memory);
    }
    for (int n = 0; n < Step::STATES; n++)
      for (long row = 0; row < rows; row++) {
        const Place& place = Step::STATE[n];
        copy(final[n] + (begin + row) * place.size, place.at(memory, rows, row), place.size);
      }
  }

  static void copy(Number* to, const Number* from, long size) { memcpy(to, from, size * sizeof(Number)); }

  // A step of a stack, or of the stack of what was before each step; some are added to a state.
  void read(int n, long begin, long rows, long step, Number* memory) {
    const Place& place = Step::READ[n];
    const int state = Step::ADDED_TO[n];
    for (long row = 0; row < rows; row++) {
      const long moment = (begin + row) * steps + step;
      const Number* from = stack[n] + moment * place.size;
      if (Step::IS_BEFORE[n]) from -= place.size;
      expect(from + (Step::BACK ? -1 : 1) * place.size, place.size);
      if (Step::IS_BEFORE[n] && !step) from = first[n] + (begin + row) * place.size;
      if (state < 0) {
        copy(place.at(memory, rows, row), from, place.size);
        continue;
      }
      Number* to = Step::STATE[state].at(memory, rows, row);
      for (long k = 0; k < place.size; k++) to[k] += from[k];
    }
  }

  // What a step leaves, which is 0 where it is masked, or a state.
  void write(int n, long begin, long rows, long step, Number* memory) {
    const Place& place = Step::WRITE[n];
    for (long row = 0; row < rows; row++) {
      Number* to = written[n] + ((begin + row) * steps + step) * place.size;
      expect(to + (Step::BACK ? -1 : 1) * place.size, place.size);
      if (!Step::IS_STATE[n] && hidden(begin + row, step))
        memset(to, 0, place.size * sizeof(Number));
      else
        copy(to, place.at(memory, rows, row), place.size);
    }
  }

  void total(int n, int group, const Number* from) {
    Number* to = sums + group * Step::SUMMED;
    for (int before = 0; before < n; before++) to += Step::TOTAL[before].size;
    for (long k = 0; k < Step::TOTAL[n].size; k++) to[k] += from[k];
  }
};

struct Settings {
  int64_t wanted = 0;  // a bit for each of what may be written
  int threads = 1;
};

void* make_settings(TF_OpKernelConstruction* construction) {
  Settings* settings = new Settings;
  TF_Status* status = TF_NewStatus();
  TF_OpKernelConstruction_GetAttrInt64(construction, "wanted", &settings->wanted, status);
  TF_OpKernelConstruction_GetAttrInt32(construction, "threads", &settings->threads, status);
  if (TF_GetCode(status) != TF_OK) TF_OpKernelConstruction_Failure(construction, status);
  TF_DeleteStatus(status);
  return settings;
}
void delete_settings(void* settings) { delete static_cast<Settings*>(settings); }

template <typename Step>
void compute(void* kernel, TF_OpKernelContext* context) {
  const Settings& settings = *static_cast<Settings*>(kernel);
  FlushDenormals flush;
  Tensors tensors(context);
  if (tensors.failed()) return;
  const int32_t* sizes = reinterpret_cast<const int32_t*>(tensors.next("sizes", 2));
  if (tensors.failed()) return;
  Run<Step> run;
  run.batch = sizes[0];
  run.steps = sizes[1];
  const long moments = run.batch * run.steps;
  run.mask = reinterpret_cast<const bool*>(tensors.optional("mask", moments));
  for (int n = 0; n < Step::STATES; n++)
    run.initial[n] = tensors.next("initial state", run.batch * Step::STATE[n].size);
  int place[Step::READS + 1];
  for (int n = 0; n < Step::READS; n++) {
    place[n] = tensors.place();
    run.stack[n] = tensors.optional("values of the steps", moments * Step::READ[n].size);
    if (Step::IS_BEFORE[n]) run.first[n] = tensors.next("state before", run.batch * Step::READ[n].size);
  }
  for (int n = 0; n < Step::VECTORS; n++)
    run.vector[n] = tensors.next("weight", Step::VECTOR[n].size * (Step::BY_ROW[n] ? run.batch : 1));
  for (int n = 0; n < Step::MATRICES; n++)
    run.matrix[n] = tensors.next("matrix", Step::DEPTH[n] * Step::COLUMNS[n]);
  if (tensors.failed()) return;

  // A step of a stack is read before it is written: what is read for the last time makes room.
  for (int n = 0; n < Step::WRITES; n++)
    run.written[n] = Step::INSTEAD_OF[n] < 0
                         ? tensors.output_if(settings.wanted >> n & 1, run.batch, run.steps, Step::WRITE[n].size)
                         : tensors.output_instead_of(place[Step::INSTEAD_OF[n]]);
  for (int n = 0; n < Step::STATES; n++) run.final[n] = tensors.output(2, run.batch, Step::STATE[n].size);
  Number* totals[Step::TOTALS + 1];
  for (int n = 0; n < Step::TOTALS; n++) totals[n] = tensors.output(1, Step::TOTAL[n].size);
  if (tensors.failed()) return;

  const bool alone = Step::OPERATIONS * moments < PARALLEL_OPERATIONS;
  run.threads = alone ? 1 : fused_rnn_threads(settings.threads);
  run.groups = (run.batch + GROUP * run.threads - 1) / (GROUP * run.threads) * run.threads;
  if (run.groups > run.batch) run.groups = run.batch;
  long size = 0;
  for (int n = 0; n < Step::MATRICES; n++) size += packed_size(Step::DEPTH[n], Step::COLUMNS[n]);
  Memory packed(size), sums(run.groups * Step::SUMMED), arena(run.batch * Step::PER_ROW + run.groups * Step::FIXED);
  if (!tensors.granted({packed, sums, arena})) return;
  run.arena = arena;
  run.packed[0] = packed;
  for (int n = 1; n < Step::MATRICES; n++)
    run.packed[n] = run.packed[n - 1] + packed_size(Step::DEPTH[n - 1], Step::COLUMNS[n - 1]);
  run.sums = sums;
  memset(sums, 0, run.groups * Step::SUMMED * sizeof(Number));
  fused_rnn_in_parallel(
      run.threads == 1, Step::MATRICES, [](void* self, int n) { static_cast<Run<Step>*>(self)->pack(n); }, &run);
  fused_rnn_in_parallel(
      run.threads == 1, run.groups, [](void* self, int group) { static_cast<Run<Step>*>(self)->run(group); }, &run);

  const Number* of_groups = sums;
  for (int n = 0; n < Step::TOTALS; of_groups += Step::TOTAL[n++].size)
    for (long k = 0; k < Step::TOTAL[n].size; k++) {
      totals[n][k] = 0;
      for (int group = 0; group < run.groups; group++) totals[n][k] += of_groups[group * Step::SUMMED + k];
    }
}

struct Registration {
  Registration() {
    const char* const attributes[] = {"wanted: int", "threads: int", nullptr};
    add_operation(NAME "Forward", FORWARD, attributes, make_settings, compute<Forward>, delete_settings);
    add_operation(NAME "Backward", BACKWARD, attributes, make_settings, compute<Backward>, delete_settings);
  }
} registration;

}  // namespace
