// The native engine of `cells.FusedRNN`: a recurrence over a batch of sequences in float32, forward and back.
//
// `translation.py` writes "cell.h" for a cell's equation, and `library.py` compiles this file with it to a
// library of two TensorFlow operations. Arrays of a user have the batch first, as in Keras.
//
// Sequences do not depend on each other, so that the batch is cut into groups of rows, each of which goes
// through all steps on one core without waiting for any other. Only where a group's weights are too large for
// a core's cache, or where there are fewer sequences than cores, do several cores share a group: each then
// has a range of the units, and they meet once a step.
//
// A step takes a vector of units of all gates at a time: the product of the state with those columns of the
// weights, and at once, while the sums are in the cache, the cell's equation.

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

#include "support.h"
#include "vectors.h"

namespace {

// --- the cell
//
// NAME; GATES, SEPARATE, STATES, VECTORS, OUTPUT, OWN_OUTPUT, RECURRENT, as in `cells.fused.Recurrence`;
// `update(blocks, states, vectors, new)`, and `pull_back(blocks, states, vectors, upstream, of_blocks,
// of_states, of_vectors)`, its gradients.

#include "cell.h"

constexpr int SUMS = GATES - SEPARATE, BLOCKS = GATES + SEPARATE, CARRIED = STATES - OWN_OUTPUT;

// A barrier that a team passes again and again.
struct Team {
  int members;
  int arrived;

  void meet(int* round) {
    if (members == 1) return;
    int all_there = ++*round * members;
    __atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL);
    for (int spins = 0; __atomic_load_n(&arrived, __ATOMIC_ACQUIRE) < all_there; spins++) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
      if (spins > 1000) sched_yield();
    }
  }
};

// The product for a number of vectors that is known here; see support.h.
template <int N, typename... Arguments>
void multiply(Arguments... arguments) {
  if constexpr (N == 1) fused_rnn_multiply1(arguments...);
  if constexpr (N == 2) fused_rnn_multiply2(arguments...);
  if constexpr (N == 3) fused_rnn_multiply3(arguments...);
  if constexpr (N == 4) fused_rnn_multiply4(arguments...);
}

// Where each of some vectors lies that lie in order.
template <int N>
struct Places {
  int at[N];
  Places() {
    for (int n = 0; n < N; n++) at[n] = n * LANES;
  }
};

// Memory that is freed at the end of the scope.
struct Memory {
  float* at;
  explicit Memory(long size) : at(static_cast<float*>(aligned_alloc(64, (size * 4 + 127) / 64 * 64))) {}
  ~Memory() { free(at); }
  Memory(const Memory&) = delete;
  operator float*() const { return at; }
};

// --- what both directions share

// Floating-point operations from which on a call takes several threads, about 20 us of one core.
constexpr double PARALLEL_OPERATIONS = 2e6;
// Bytes of weights up to which one thread packs them: for so little another need not wake.
constexpr double PACKED_ALONE = 5e5;
// Bytes of weights that a member of a team has, at about the most: what a core's own cache holds.
constexpr double SHARED_WEIGHTS = 2e6;
// Operations of a member's step, about 1 us, below which meeting after each would cost more than it gains.
constexpr double STEP_OPERATIONS = 1e5;
constexpr int NARROW = 1;  // gates at a time
constexpr int WIDE = GATES % 4 == 0 ? 4 : GATES % 3 == 0 ? 3 : GATES % 2 == 0 ? 2 : 1;
constexpr int PAIR = 2;    // vectors of units at a time, in the product back
constexpr long GROUP = 32;  // sequences of a group, at the most; twice as many where a team shares it
constexpr long AHEAD = 64;  // rows of inputs that are multiplied at once

struct Sizes {
  long batch, steps, features, units;
  long vectors() const { return (units + LANES - 1) / LANES; }
  long padded() const { return vectors() * LANES; }
  long lanes(long vector) const { return units - vector * LANES; }
};

// How the work is cut: into groups of rows, each shared by a team.
struct Plan {
  int threads, groups, members;
  bool packs_alone;

  Plan(const Sizes& sizes, long features, int available) {
    double weights = 4.0 * GATES * sizes.units * (sizes.units + features);
    double operations = weights / 2 * sizes.batch * sizes.steps;
    long pairs = (sizes.vectors() + PAIR - 1) / PAIR;
    threads = operations < PARALLEL_OPERATIONS ? 1 : fused_rnn_threads(available);
    packs_alone = threads == 1 || weights < PACKED_ALONE;
    double shares = weights / SHARED_WEIGHTS + 1;
    if (threads > 1 && sizes.batch * shares < threads) shares = (threads + sizes.batch - 1) / sizes.batch;
    members = shares > threads ? threads : static_cast<int>(shares);
    if (members > pairs) members = pairs;
    if (weights / 2 * sizes.batch / members < STEP_OPERATIONS) members = 1;
    long teams = threads / members;
    long most = members > 1 ? 2 * GROUP : GROUP;
    groups = (sizes.batch + most * teams - 1) / (most * teams) * teams;
    if (groups > sizes.batch) groups = sizes.batch;
  }
  int parts() const { return groups * members; }
};

// A member's part of a plan: a group's rows and a range of the vectors of units.
struct Part {
  long row, rows, begin, end;
  Team* team;
  int round = 0;

  Part(const Sizes& sizes, const Plan& plan, Team* teams, int index) {
    int group = index / plan.members, member = index % plan.members;
    row = sizes.batch * group / plan.groups;
    rows = sizes.batch * (group + 1) / plan.groups - row;
    long pairs = (sizes.vectors() + PAIR - 1) / PAIR;
    begin = pairs * member / plan.members * PAIR;
    end = pairs * (member + 1) / plan.members * PAIR;
    if (end > sizes.vectors()) end = sizes.vectors();
    team = &teams[group];
  }
  bool holds(long vector) const { return vector >= begin && vector < end; }
};

// Where the outputs of a batch are not zero: from a sequence's first step on that is not masked, or, where
// masked ones are to be zero, at all that are not.
struct Shown {
  const bool* mask;
  bool zero_masked;
  long steps;
  long* first;

  Shown(const bool* mask, bool zero_masked, const Sizes& sizes)
      : mask(mask), zero_masked(zero_masked), steps(sizes.steps), first(nullptr) {
    if (!mask || zero_masked) return;
    first = static_cast<long*>(calloc(sizes.batch, sizeof(long)));
    for (long row = 0; row < sizes.batch; row++)
      while (first[row] < steps && !mask[row * steps + first[row]]) first[row]++;
  }
  ~Shown() { free(first); }
  Shown(const Shown&) = delete;
  bool at(long row, long step) const {
    return !mask || (zero_masked ? mask[row * steps + step] : step >= first[row]);
  }
};

struct Teams {
  Team* at;
  explicit Teams(const Plan& plan) : at(static_cast<Team*>(calloc(plan.groups, sizeof(Team)))) {
    for (int group = 0; group < plan.groups; group++) at[group].members = plan.members;
  }
  ~Teams() { free(at); }
};

// Weights (depth, GATES * units), column by column of vectors: [vector][chunk of N gates][depth][N][LANES].
void pack(const Sizes& sizes, const float* weights, long depth, int N, long vector, float* to) {
  long lanes = sizes.lanes(vector);
  for (int first = 0; first < GATES; first += N)
    for (long k = 0; k < depth; k++)
      for (int n = 0; n < N; n++, to += LANES)
        store(to, load(weights + (k * GATES + first + n) * sizes.units + vector * LANES, lanes));
}

// rows * the packed columns of one vector, added to a row's GATES vectors, which begin at `place[gate]`.
void multiply_gates(bool narrow, long rows, long depth, const float* left, long left_stride, long left_gate,
                    const float* packed, float* sum, long sum_stride, const int* place) {
  for (int first = 0; first < GATES; first += narrow ? NARROW : WIDE, left += left_gate) {
    const float* right = packed + first * depth * LANES;
    if (narrow)
      multiply<NARROW>(rows, depth, left, left_stride, right, sum, sum_stride, place + first);
    else
      multiply<WIDE>(rows, depth, left, left_stride, right, sum, sum_stride, place + first);
  }
}

// A call's tensors: its inputs in order, and its outputs.
class Tensors {
 public:
  explicit Tensors(TF_OpKernelContext* context) : context(context), status(TF_NewStatus()) {
    count = TF_NumInputs(context);
    tensors = static_cast<TF_Tensor**>(calloc(count, sizeof(TF_Tensor*)));
    for (int index = 0; index < count; index++) TF_GetInput(context, index, &tensors[index], status);
  }
  ~Tensors() {
    if (TF_GetCode(status) != TF_OK) TF_OpKernelContext_Failure(context, status);
    for (int index = 0; index < count; index++)
      if (tensors[index]) TF_DeleteTensor(tensors[index]);
    free(tensors);
    TF_DeleteStatus(status);
  }
  // The next input, which must have so many elements.
  const float* next(const char* name, long elements) {
    TF_Tensor* tensor = tensors[at++];
    if (TF_TensorElementCount(tensor) != elements && !failed()) {
      char message[200];
      snprintf(message, sizeof message, "FusedRNN: the operand `%s` has %lld elements where there must be %ld",
               name, static_cast<long long>(TF_TensorElementCount(tensor)), elements);
      TF_SetStatus(status, TF_INVALID_ARGUMENT, message);
    }
    return static_cast<const float*>(TF_TensorData(tensor));
  }
  // The same of a matrix or more; null where it is left out, which a vector in its place says.
  const float* optional(const char* name, long elements) {
    if (rank() > 1) return next(name, elements);
    at++;
    return nullptr;
  }
  // A dimension of the input that comes next.
  long dimension(int axis) const { return TF_Dim(tensors[at], axis); }
  int rank() const { return TF_NumDims(tensors[at]); }

  float* output(int rank, int64_t a, int64_t b = 1, int64_t c = 1) {
    if (failed()) return nullptr;
    int64_t shape[] = {a, b, c};
    TF_Tensor* tensor = TF_AllocateOutput(context, made++, TF_FLOAT, shape, rank, a * b * c * 4, status);
    if (TF_GetCode(status) != TF_OK) return nullptr;
    float* data = static_cast<float*>(TF_TensorData(tensor));
    TF_DeleteTensor(tensor);  // the context holds another reference
    return data;
  }
  // An output in the place of an input, if nothing else needs that.
  float* output_instead_of(int input) {
    if (failed()) return nullptr;
    int64_t shape[3];
    for (int axis = 0; axis < 3; axis++) shape[axis] = TF_Dim(tensors[input], axis);
    TF_DeleteTensor(tensors[input]);  // this reference to it would be another need
    tensors[input] = nullptr;
    int found;
    TF_Tensor* tensor =
        TF_ForwardInputOrAllocateOutput(context, &input, 1, made++, shape, 3, &found, status);
    if (TF_GetCode(status) != TF_OK) return nullptr;
    float* data = static_cast<float*>(TF_TensorData(tensor));
    TF_DeleteTensor(tensor);
    return data;
  }
  bool failed() const { return TF_GetCode(status) != TF_OK; }
  // Whether there is memory for what the call needs besides.
  bool granted(std::initializer_list<const float*> memory) {
    for (const float* each : memory)
      if (!each) TF_SetStatus(status, TF_RESOURCE_EXHAUSTED, "FusedRNN: out of memory");
    return !failed();
  }

 private:
  TF_OpKernelContext* context;
  TF_Status* status;
  TF_Tensor** tensors;
  int count, at = 0, made = 0;
};

// What both directions work with.
struct Pass {
  Sizes sizes;
  Plan plan;
  const float *recurrent, *drops, *weights[VECTORS + 1], *initial[STATES];
  const bool* mask;
  const Shown* shown;
  Team* teams;

  // The operands that both take.
  void read(Tensors& tensors) {
    const long units = sizes.units, all_states = sizes.batch * units;
    recurrent = tensors.optional("recurrent_kernel", units * GATES * units);
    mask = reinterpret_cast<const bool*>(tensors.optional("mask", sizes.batch * sizes.steps));
    drops = tensors.optional("recurrent dropout", GATES * all_states);
    for (int n = 0; n < VECTORS; n++) weights[n] = tensors.next("vector", units);
    for (int index = 0; index < CARRIED; index++) initial[index] = tensors.next("initial_state", all_states);
  }
};

// --- forward

struct Forward : Pass {
  bool hoisted;
  const float *inputs, *kernel, *bias, *separate_bias;
  float *outputs, *blocks, *kept[STATES], *final[STATES];
  // of all rows, padded
  float *packed_kernel, *packed_recurrent, *state[STATES], *next, *dropped[2];

  bool narrow() const { return drops; }
  void pack_vector(long vector) {
    long padded = GATES * LANES;
    if (!hoisted) pack(sizes, kernel, sizes.features, WIDE, vector,
                     packed_kernel + vector * sizes.features * padded);
    if (RECURRENT) pack(sizes, recurrent, sizes.units, narrow() ? NARROW : WIDE, vector,
                        packed_recurrent + vector * sizes.units * padded);
  }

  // What multiplies the recurrent weights after a row's new state.
  void drop(float* to, long row, long vector, Vector h) {
    long lanes = sizes.lanes(vector), units = sizes.units;
    for (int gate = 0; gate < GATES; gate++)
      store(to + (gate * sizes.batch + row) * sizes.padded() + vector * LANES,
            h * load(drops + (gate * sizes.batch + row) * units + vector * LANES, lanes));
  }

  // The inputs' products of some steps for some vectors: [step][row][vector][GATES][LANES].
  void project(const Part& part, long step, long steps, float* to) {
    static const Places<GATES> in_order;
    const long units = sizes.units, width = (part.end - part.begin) * GATES * LANES;
    for (long vector = part.begin; vector < part.end; vector++) {
      long lanes = sizes.lanes(vector);
      float* at = to + (vector - part.begin) * GATES * LANES;
      for (long s = 0; s < steps; s++)
        for (long row = 0; row < part.rows; row++)
          for (int gate = 0; gate < GATES; gate++) {
            const float* from = bias + gate * units;
            if (hoisted) from = inputs + (((part.row + row) * sizes.steps + step + s) * GATES + gate) * units;
            store(at + (s * part.rows + row) * width + gate * LANES, load(from + vector * LANES, lanes));
          }
      if (hoisted) continue;
      const float* packed = packed_kernel + vector * sizes.features * GATES * LANES;
      const float* from = inputs + (part.row * sizes.steps + step) * sizes.features;
      long by_row = sizes.steps * sizes.features;
      if (part.rows >= steps)
        for (long s = 0; s < steps; s++)
          multiply_gates(false, part.rows, sizes.features, from + s * sizes.features, by_row, 0, packed,
                         at + s * part.rows * width, width, in_order.at);
      else
        for (long row = 0; row < part.rows; row++)
          multiply_gates(false, steps, sizes.features, from + row * by_row, sizes.features, 0, packed,
                         at + row * width, part.rows * width, in_order.at);
    }
  }

  void run(int index) {
    Part part(sizes, plan, teams, index);
    const long padded = sizes.padded(), width = (part.end - part.begin) * GATES * LANES;
    long ahead = AHEAD / part.rows > 0 ? AHEAD / part.rows : 1;  // steps whose inputs are multiplied at once
    if (ahead > sizes.steps) ahead = sizes.steps;
    Memory projected(ahead * part.rows * width), sums(part.rows * BLOCKS * LANES);
    start(part);
    part.team->meet(&part.round);
    for (long step = 0; step < sizes.steps; step++) {
      if (step % ahead == 0) {
        long left = sizes.steps - step;
        project(part, step, left < ahead ? left : ahead, projected);
      }
      const float* from_x = projected + step % ahead * part.rows * width;
      float *h = step % 2 ? next : state[0], *new_h = step % 2 ? state[0] : next;
      for (long vector = part.begin; vector < part.end; vector++) {
        one_vector(part, step, vector, from_x + (vector - part.begin) * GATES * LANES, width, sums, h, new_h);
      }
      part.team->meet(&part.round);
    }
    float* h = sizes.steps % 2 ? next : state[0];
    for (int index = 0; index < STATES; index++)
      for (long row = part.row; row < part.row + part.rows; row++)
        for (long vector = part.begin; vector < part.end; vector++)
          store(final[index] + row * sizes.units + vector * LANES,
                load((index ? state[index] : h) + row * padded + vector * LANES), sizes.lanes(vector));
  }

  void start(const Part& part) {
    for (long row = part.row; row < part.row + part.rows; row++)
      for (long vector = part.begin; vector < part.end; vector++)
        for (int index = 0; index < STATES; index++) {
          Vector value = {};
          if (index < CARRIED)
            value = load(initial[index] + row * sizes.units + vector * LANES, sizes.lanes(vector));
          store(state[index] + row * sizes.padded() + vector * LANES, value);
          if (index == 0 && drops) drop(dropped[0], row, vector, value);
        }
  }

  // A step of one vector of units: products, equation, and what is to be kept.
  void one_vector(const Part& part, long step, long vector, const float* from_x, long x_stride, float* sums,
                  const float* h, float* new_h) {
    static const Places<GATES> in_order;
    const long units = sizes.units, padded = sizes.padded(), lanes = sizes.lanes(vector);
    Vector bias_h[SEPARATE + 1], v[VECTORS + 1];
    for (int n = 0; n < SEPARATE; n++) bias_h[n] = load(separate_bias + n * units + vector * LANES, lanes);
    for (int n = 0; n < VECTORS; n++) v[n] = load(weights[n] + vector * LANES, lanes);
    for (long row = 0; row < part.rows; row++) {
      float* at = sums + row * BLOCKS * LANES;
      for (int gate = 0; gate < GATES; gate++) {
        Vector x = load(from_x + row * x_stride + gate * LANES);
        store(at + gate * LANES, gate < SUMS ? x : bias_h[gate < SUMS ? 0 : gate - SUMS]);
        if (gate >= SUMS) store(at + (gate + SEPARATE) * LANES, x);
      }
    }
    if (RECURRENT) {
      const float* left = drops ? dropped[step % 2] : h;
      multiply_gates(narrow(), part.rows, units, left + part.row * padded, padded,
                     drops ? sizes.batch * padded : 0, packed_recurrent + vector * units * GATES * LANES,
                     sums, BLOCKS * LANES, in_order.at);
    }
    for (long row = 0; row < part.rows; row++) {
      const long sequence_row = part.row + row, moment = sequence_row * sizes.steps + step;
      const long here = sequence_row * padded + vector * LANES;
      Vector z[BLOCKS], before[STATES], after[STATES];
      for (int block = 0; block < BLOCKS; block++) z[block] = load(sums + (row * BLOCKS + block) * LANES);
      before[0] = load(h + here);
      for (int index = 1; index < STATES; index++) before[index] = load(state[index] + here);
      update(z, before, v, after);
      if (mask && !mask[moment])
        for (int index = 0; index < STATES; index++) after[index] = before[index];
      store(new_h + here, after[0]);
      if (drops) drop(dropped[(step + 1) % 2], sequence_row, vector, after[0]);
      for (int index = 1; index < STATES; index++) store(state[index] + here, after[index]);
      for (int index = 0; index < STATES; index++)
        if (kept[index]) store(kept[index] + moment * units + vector * LANES, after[index], lanes);
      if (outputs)
        store(outputs + moment * units + vector * LANES,
              shown->at(sequence_row, step) ? after[OUTPUT] : Vector{}, lanes);
      if (blocks)
        for (int block = 0; block < BLOCKS; block++)
          store(blocks + (moment * BLOCKS + block) * units + vector * LANES, z[block], lanes);
    }
  }
};

// --- backward

struct Backward : Pass {
  const float *blocks, *of_outputs, *kept[STATES], *of_final[STATES];
  float *of_inputs, *of_products, *of_initial[STATES];
  // of all rows, padded; `of_gates` are [gate][row][unit]
  float *packed, *of_state[STATES], *of_gates[2], *sums;
  static constexpr int SUMMED = BLOCKS + VECTORS;  // over all sequences and steps

  // The transposed weights of a pair of vectors of units: [gate][unit][N][LANES].
  void pack_pair(long pair) {
    long first = pair * PAIR, left = sizes.vectors() - first, N = left < PAIR ? left : PAIR;
    float* to = packed + first * GATES * sizes.units * LANES;
    memset(to, 0, N * GATES * sizes.units * LANES * sizeof(float));
    for (long n = 0; n < N; n++)
      for (long lane = 0; lane < LANES && lane < sizes.lanes(first + n); lane++) {
        const float* from = recurrent + ((first + n) * LANES + lane) * GATES * sizes.units;
        for (long k = 0; k < GATES * sizes.units; k++) to[(k * N + n) * LANES + lane] = from[k];
      }
  }

  void run(int index) {
    Part part(sizes, plan, teams, index);
    Memory product(part.rows * PAIR * LANES);
    float* own_sums = sums + index * SUMMED * sizes.padded();
    memset(own_sums, 0, SUMMED * sizes.padded() * sizeof(float));
    copy_states(part, of_final, of_state, STATES);
    for (long step = sizes.steps - 1; step >= 0; step--) {
      for (long vector = part.begin; vector < part.end; vector++)
        one_vector(part, step, vector, of_gates[step % 2], own_sums + vector * LANES);
      part.team->meet(&part.round);
      if (!RECURRENT) continue;
      for (long vector = part.begin; vector < part.end; vector += PAIR)
        if (part.end - vector < PAIR)
          through_weights<1>(part, vector, of_gates[step % 2], product);
        else
          through_weights<PAIR>(part, vector, of_gates[step % 2], product);
    }
    for (int state = 0; state < CARRIED; state++)
      for (long row = part.row; row < part.row + part.rows; row++)
        for (long vector = part.begin; vector < part.end; vector++)
          store(of_initial[state] + row * sizes.units + vector * LANES,
                load(of_state[state] + row * sizes.padded() + vector * LANES), sizes.lanes(vector));
  }

  void copy_states(const Part& part, const float* const* from, float* const* to, int count) {
    for (int state = 0; state < count; state++)
      for (long row = part.row; row < part.row + part.rows; row++)
        for (long vector = part.begin; vector < part.end; vector++)
          store(to[state] + row * sizes.padded() + vector * LANES,
                load(from[state] + row * sizes.units + vector * LANES, sizes.lanes(vector)));
  }

  // The gradients of a step's gates and of the states before it, without the recurrent product.
  void one_vector(const Part& part, long step, long vector, float* gates, float* own_sums) {
    const long units = sizes.units, padded = sizes.padded(), lanes = sizes.lanes(vector);
    Vector v[VECTORS + 1], total[SUMMED] = {};
    for (int n = 0; n < VECTORS; n++) v[n] = load(weights[n] + vector * LANES, lanes);
    for (long row = part.row; row < part.row + part.rows; row++) {
      const long moment = row * sizes.steps + step, here = row * padded + vector * LANES;
      const long unit = vector * LANES;
      Vector z[BLOCKS], before[STATES], upstream[STATES];
      Vector of_blocks[BLOCKS] = {}, of_states[STATES], of_vectors[VECTORS + 1];
      for (int index = 0; index < STATES; index++) upstream[index] = load(of_state[index] + here);
      if (of_outputs && shown->at(row, step))
        upstream[OUTPUT] += load(of_outputs + moment * units + unit, lanes);
      if (mask && !mask[moment]) {  // what the step did not change passes it by
        for (int index = 0; index < STATES; index++) of_states[index] = upstream[index];
      } else {
        for (int block = 0; block < BLOCKS; block++)
          z[block] = load(blocks + (moment * BLOCKS + block) * units + unit, lanes);
        for (int index = 0; index < STATES; index++)
          before[index] = index >= CARRIED ? Vector{}
                          : step ? load(kept[index] + (moment - 1) * units + unit, lanes)
                                 : load(initial[index] + row * units + unit, lanes);
        pull_back(z, before, v, upstream, of_blocks, of_states, of_vectors);
        for (int block = 0; block < BLOCKS; block++) total[block] += of_blocks[block];
        for (int n = 0; n < VECTORS; n++) total[BLOCKS + n] += of_vectors[n];
      }
      for (int index = 0; index < STATES; index++) store(of_state[index] + here, of_states[index]);
      for (int gate = 0; gate < GATES; gate++) {
        store(gates + gate * sizes.batch * padded + here, of_blocks[gate]);
        Vector of_x = of_blocks[gate < SUMS ? gate : gate + SEPARATE];
        store(of_inputs + (moment * GATES + gate) * units + unit, of_x, lanes);
        if (SEPARATE) store(of_products + (moment * GATES + gate) * units + unit, of_blocks[gate], lanes);
      }
    }
    for (int n = 0; n < SUMMED; n++)
      store(own_sums + n * padded, load(own_sums + n * padded) + total[n]);
  }

  // Adds to the first state's gradient what comes through the recurrent weights, for N vectors of units.
  template <int N>
  void through_weights(const Part& part, long vector, const float* gates, float* product) {
    static const Places<N> in_order;
    const long padded = sizes.padded();
    const float* with = packed + vector * GATES * sizes.units * LANES;
    for (int gate = 0; gate < GATES; gate++) {
      if (gate == 0 || drops) memset(product, 0, part.rows * N * LANES * sizeof(float));
      multiply<N>(part.rows, sizes.units, gates + (gate * sizes.batch + part.row) * padded, padded,
                  with + gate * sizes.units * N * LANES, product, N * LANES, in_order.at);
      if (gate < GATES - 1 && !drops) continue;
      for (long row = 0; row < part.rows; row++)
        for (int n = 0; n < N; n++) {
          Vector more = load(product + (row * N + n) * LANES);
          const long unit = (vector + n) * LANES, sequence_row = part.row + row;
          if (drops)
            more *= load(drops + (gate * sizes.batch + sequence_row) * sizes.units + unit,
                         sizes.lanes(vector + n));
          float* to = of_state[0] + sequence_row * padded + unit;
          store(to, load(to) + more);
        }
    }
  }
};

// --- the operations

struct Settings {
  bool save = false, sequence = false, zero_masked = false;
  int threads = 1;
};

void* make_settings(TF_OpKernelConstruction* construction) {
  Settings* settings = new Settings;
  TF_Status* status = TF_NewStatus();
  unsigned char flag = 0;
  if (TF_OpKernelConstruction_HasAttr(construction, "save", status)) {
    TF_OpKernelConstruction_GetAttrBool(construction, "save", &flag, status);
    settings->save = flag;
    TF_OpKernelConstruction_GetAttrBool(construction, "sequence", &flag, status);
    settings->sequence = flag;
  }
  TF_OpKernelConstruction_GetAttrBool(construction, "zero_masked", &flag, status);
  settings->zero_masked = flag;
  TF_OpKernelConstruction_GetAttrInt32(construction, "threads", &settings->threads, status);
  if (TF_GetCode(status) != TF_OK) TF_OpKernelConstruction_Failure(construction, status);
  TF_DeleteStatus(status);
  return settings;
}
void delete_settings(void* settings) { delete static_cast<Settings*>(settings); }

void compute_forward(void* kernel, TF_OpKernelContext* context) {
  const Settings& settings = *static_cast<Settings*>(kernel);
  FlushDenormals flush;
  Tensors tensors(context);
  if (tensors.failed()) return;
  Sizes sizes;
  sizes.batch = tensors.dimension(0);
  sizes.steps = tensors.dimension(1);
  sizes.features = tensors.dimension(2);
  const float* inputs = tensors.next("inputs", sizes.batch * sizes.steps * sizes.features);
  const bool hoisted = tensors.rank() == 1;  // no kernel: the inputs are the gates' products already
  sizes.units = (hoisted ? sizes.features : tensors.dimension(1)) / GATES;
  const long width = GATES * sizes.units;
  const float* weights = tensors.optional("kernel", sizes.features * width);
  Forward forward = {{sizes, Plan(sizes, hoisted ? 0 : sizes.features, settings.threads)}};
  forward.inputs = inputs;
  forward.hoisted = hoisted;
  forward.kernel = weights;
  forward.bias = tensors.next("bias", width);
  forward.separate_bias = tensors.next("recurrent bias", SEPARATE * sizes.units);
  forward.read(tensors);
  if (tensors.failed()) return;

  // Without a mask the outputs are the states that are kept.
  const bool masked = settings.sequence && forward.mask;
  forward.outputs = masked ? tensors.output(3, sizes.batch, sizes.steps, sizes.units)
                           : (tensors.output(1, 0), nullptr);
  forward.blocks = settings.save ? tensors.output(3, sizes.batch, sizes.steps, BLOCKS * sizes.units)
                                 : (tensors.output(1, 0), nullptr);
  for (int index = 0; index < STATES; index++) {
    bool kept = (settings.save && index < CARRIED) || (settings.sequence && !masked && index == OUTPUT);
    forward.kept[index] =
        kept ? tensors.output(3, sizes.batch, sizes.steps, sizes.units) : (tensors.output(1, 0), nullptr);
  }
  for (int index = 0; index < STATES; index++)
    forward.final[index] = tensors.output(2, sizes.batch, sizes.units);
  if (tensors.failed()) return;

  const long all_rows = sizes.batch * sizes.padded(), per_depth = sizes.padded() * GATES;
  Memory packed_kernel(hoisted ? 0 : sizes.features * per_depth), packed(sizes.units * per_depth);
  Memory states(all_rows * (STATES + 1)), dropped(forward.drops ? 2 * GATES * all_rows : 0);
  if (!tensors.granted({packed_kernel, packed, states, dropped})) return;
  forward.packed_kernel = packed_kernel;
  forward.packed_recurrent = packed;
  for (int index = 0; index < STATES; index++) forward.state[index] = states + index * all_rows;
  forward.next = states + STATES * all_rows;
  for (int side = 0; side < 2; side++) forward.dropped[side] = dropped + side * GATES * all_rows;
  const Shown shown(forward.mask, settings.zero_masked, sizes);
  forward.shown = &shown;
  Teams teams(forward.plan);
  forward.teams = teams.at;
  fused_rnn_in_parallel(
      forward.plan.packs_alone, sizes.vectors(),
      [](void* self, int vector) { static_cast<Forward*>(self)->pack_vector(vector); }, &forward);
  fused_rnn_in_parallel(
      forward.plan.threads == 1, forward.plan.parts(),
      [](void* self, int part) { static_cast<Forward*>(self)->run(part); }, &forward);
}

void compute_backward(void* kernel, TF_OpKernelContext* context) {
  const Settings& settings = *static_cast<Settings*>(kernel);
  FlushDenormals flush;
  Tensors tensors(context);
  if (tensors.failed()) return;
  Sizes sizes;
  sizes.batch = tensors.dimension(0);
  sizes.steps = tensors.dimension(1);
  sizes.units = tensors.dimension(2) / BLOCKS;
  sizes.features = 0;
  Backward backward = {{sizes, Plan(sizes, 0, settings.threads)}};
  const long width = GATES * sizes.units, moments = sizes.batch * sizes.steps;
  backward.blocks = tensors.next("blocks", moments * BLOCKS * sizes.units);
  backward.read(tensors);
  for (int index = 0; index < CARRIED; index++)
    backward.kept[index] = tensors.next("states", moments * sizes.units);
  backward.of_outputs = tensors.optional("gradient of outputs", moments * sizes.units);
  for (int index = 0; index < STATES; index++)
    backward.of_final[index] = tensors.next("gradient of a state", sizes.batch * sizes.units);
  if (tensors.failed()) return;

  // A step's gradients may take the place of its pre-activations, which are read before.
  backward.of_inputs = SEPARATE ? tensors.output(3, sizes.batch, sizes.steps, width)
                                : tensors.output_instead_of(0);
  backward.of_products =
      SEPARATE ? tensors.output(3, sizes.batch, sizes.steps, width) : (tensors.output(1, 0), nullptr);
  float* of_bias = tensors.output(1, width);
  float* of_separate_bias = tensors.output(1, SEPARATE * sizes.units);
  float* of_vectors[VECTORS + 1];
  for (int n = 0; n < VECTORS; n++) of_vectors[n] = tensors.output(1, sizes.units);
  for (int index = 0; index < CARRIED; index++)
    backward.of_initial[index] = tensors.output(2, sizes.batch, sizes.units);
  if (tensors.failed()) return;

  const long all_rows = sizes.batch * sizes.padded(), summed = Backward::SUMMED * sizes.padded();
  Memory packed(RECURRENT ? sizes.padded() * GATES * sizes.units : 0);
  Memory states(all_rows * (STATES + 2 * GATES)), sums(backward.plan.parts() * summed);
  if (!tensors.granted({packed, states, sums})) return;
  backward.packed = packed;
  backward.sums = sums;
  for (int index = 0; index < STATES; index++) backward.of_state[index] = states + index * all_rows;
  for (int side = 0; side < 2; side++)
    backward.of_gates[side] = states + (STATES + side * GATES) * all_rows;
  const Shown shown(backward.mask, settings.zero_masked, sizes);
  backward.shown = &shown;
  Teams teams(backward.plan);
  backward.teams = teams.at;
  if (RECURRENT)
    fused_rnn_in_parallel(
        backward.plan.packs_alone, (sizes.vectors() + PAIR - 1) / PAIR,
        [](void* self, int pair) { static_cast<Backward*>(self)->pack_pair(pair); }, &backward);
  fused_rnn_in_parallel(
      backward.plan.threads == 1, backward.plan.parts(),
      [](void* self, int part) { static_cast<Backward*>(self)->run(part); }, &backward);

  for (int n = 0; n < Backward::SUMMED; n++) {
    float* to = n < SUMS          ? of_bias + n * sizes.units
                : n < GATES       ? of_separate_bias + (n - SUMS) * sizes.units
                : n < BLOCKS      ? of_bias + (n - SEPARATE) * sizes.units
                                  : of_vectors[n - BLOCKS];
    for (long unit = 0; unit < sizes.units; unit++) {
      float total = 0;
      for (int part = 0; part < backward.plan.parts(); part++)
        if (Part(sizes, backward.plan, teams.at, part).holds(unit / LANES))
          total += sums[part * summed + n * sizes.padded() + unit];
      to[unit] = total;
    }
  }
}

void unknown_shapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeInferenceContextSetUnknownShape(context, status);
}

// Registers an operation with its kernel: `specifications` are its inputs, "->", its outputs and a null.
void add_operation(const char* name, const char* const* specifications, bool flags,
                   void (*compute)(void*, TF_OpKernelContext*)) {
  TF_OpDefinitionBuilder* definition = TF_NewOpDefinitionBuilder(name);
  bool is_output = false;
  for (; *specifications; specifications++)
    if (!strcmp(*specifications, "->"))
      is_output = true;
    else if (is_output)
      TF_OpDefinitionBuilderAddOutput(definition, *specifications);
    else
      TF_OpDefinitionBuilderAddInput(definition, *specifications);
  if (flags) {
    TF_OpDefinitionBuilderAddAttr(definition, "save: bool");
    TF_OpDefinitionBuilderAddAttr(definition, "sequence: bool");
  }
  TF_OpDefinitionBuilderAddAttr(definition, "zero_masked: bool");
  TF_OpDefinitionBuilderAddAttr(definition, "threads: int");
  TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, unknown_shapes);
  TF_Status* status = TF_NewStatus();
  TF_RegisterOpDefinition(definition, status);
  if (TF_GetCode(status) == TF_OK)
    TF_RegisterKernelBuilder(
        name, TF_NewKernelBuilder(name, "CPU", make_settings, compute, delete_settings), status);
  TF_DeleteStatus(status);
}

struct Registration {
  Registration() {
    add_operation(NAME "Forward", FORWARD, true, compute_forward);
    add_operation(NAME "Backward", BACKWARD, false, compute_backward);
  }
} registration;

}  // namespace
