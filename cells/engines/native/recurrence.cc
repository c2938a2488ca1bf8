// The native engine of `cells.FusedRNN`: a recurrence over a batch of sequences, forward and back.
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
// weights, and at once, while the sums are in the cache, the cell's equation. Where gates are late, their
// product waits until all units of the others are there.

#include <sched.h>

#include "operation.h"

namespace {

// --- the cell
//
// NAME; GATES, SEPARATE, LATE, STATES, VECTORS, OUTPUT, OWN_OUTPUT, RECURRENT, as in
// `cells.engines.recurrence.Recurrence`,
// but LATE is 0 without recurrent products;
// `update(blocks, states, vectors, new)` and `late_input(blocks, states, vectors, result)`; and of each its
// gradients, `pull_back_...(blocks, states, vectors, upstream, of_blocks, of_states, of_vectors)`.

#include "cell.h"

constexpr int TOGETHER = GATES - LATE, SUMS = TOGETHER - SEPARATE, BLOCKS = GATES + SEPARATE;
constexpr int CARRIED = STATES - OWN_OUTPUT;

// The block of a gate that its inputs' product is in, and that of its recurrent product.
constexpr int block_of_x(int gate) { return gate < SUMS ? gate : gate + SEPARATE; }
constexpr int block_of_h(int gate) { return gate < TOGETHER ? gate : gate + SEPARATE; }

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

// --- what both directions share

// Floating-point operations from which on a call takes several threads, about 20 us of one core.
constexpr double PARALLEL_OPERATIONS = 2e6;
// Bytes of weights up to which one thread packs them: for so little another need not wake.
constexpr double PACKED_ALONE = 5e5;
// Bytes of weights that a member of a team has, at about the most: what a core's own cache holds.
constexpr double SHARED_WEIGHTS = 2e6;
// Operations of a member's step, about 1 us, below which meeting after each would cost more than it gains. An LSTM of
// 128 units and one sequence is just below: 100 steps take 0.4 ms on one core, and 4 to 5 ms shared by two on a busy
// machine.
constexpr double STEP_OPERATIONS = 1e5;
// Of so many gates, how many a product takes at a time.
constexpr int wide(int gates) { return gates % 4 == 0 ? 4 : gates % 3 == 0 ? 3 : gates % 2 == 0 ? 2 : 1; }
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
    double weights = 1.0 * sizeof(Number) * GATES * sizes.units * (sizes.units + features);
    double operations = 2 * weights / sizeof(Number) * sizes.batch * sizes.steps;
    long pairs = (sizes.vectors() + PAIR - 1) / PAIR;
    threads = operations < PARALLEL_OPERATIONS ? 1 : fused_rnn_threads(available);
    packs_alone = threads == 1 || weights < PACKED_ALONE;
    double shares = weights / SHARED_WEIGHTS + 1;
    if (threads > 1 && sizes.batch * shares < threads) shares = (threads + sizes.batch - 1) / sizes.batch;
    members = shares > threads ? threads : static_cast<int>(shares);
    if (members > pairs) members = pairs;
    if (2 * weights / sizeof(Number) * sizes.batch / members < STEP_OPERATIONS) members = 1;
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
  int group, member;
  Team* team;
  int round = 0;

  Part(const Sizes& sizes, const Plan& plan, Team* teams, int index) {
    group = index / plan.members, member = index % plan.members;
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

// COUNT gates' columns of weights (depth, GATES * units), for a vector of units:
// [chunk of gates][depth][gate][LANES], a chunk as many gates as a product takes at a time.
template <int COUNT>
void pack(const Sizes& sizes, const Number* weights, long depth, int gate, bool apart, long vector, Number* to) {
  const int N = apart ? 1 : wide(COUNT);
  const long lanes = sizes.lanes(vector);
  for (int first = gate; first < gate + COUNT; first += N)
    for (long k = 0; k < depth; k++)
      for (int n = 0; n < N; n++, to += LANES)
        store(to, load(weights + (k * GATES + first + n) * sizes.units + vector * LANES, lanes));
}

// rows * COUNT gates' packed columns of one vector, added to a row's COUNT vectors; where the gates are taken
// apart each has rows of its own, `left_gate` further on.
template <int COUNT>
void multiply_gates(bool apart, long rows, long depth, const Number* left, long left_stride, long left_gate,
                    const Number* packed, Number* sum, long sum_stride) {
  static const Places<wide(COUNT)> in_order;
  const int N = apart ? 1 : wide(COUNT);
  for (int first = 0; first < COUNT; first += N, left += left_gate) {
    const Number* right = packed + first * depth * LANES;
    if (apart)
      multiply<1>(rows, depth, left, left_stride, right, sum + first * LANES, sum_stride, in_order.at);
    else
      multiply<wide(COUNT)>(rows, depth, left, left_stride, right, sum + first * LANES, sum_stride, in_order.at);
  }
}

// What both directions work with.
struct Pass {
  Sizes sizes;
  Plan plan;
  const Number *recurrent, *drops, *weights[VECTORS + 1], *initial[STATES];
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
  void read_vectors(long vector, Vector* v) const {
    for (int n = 0; n < VECTORS; n++) v[n] = load(weights[n] + vector * LANES, sizes.lanes(vector));
  }
};

// --- forward

struct Forward : Pass {
  bool hoisted;
  const Number *inputs, *kernel, *bias, *separate_bias;
  // what is kept: `products` are the gates' pre-activations, but of separate ones the recurrent part alone,
  // whose other part is in `apart`
  Number *outputs, *products, *apart, *kept[STATES], *final[STATES];
  // of all rows, padded; what is multiplied is there once, or with dropout for each of its gates
  Number *packed_kernel, *packed_recurrent, *state[STATES], *next, *dropped[2], *waited;

  void pack_vector(long vector) {
    const long width = GATES * LANES;
    if (!hoisted)
      pack<GATES>(sizes, kernel, sizes.features, 0, false, vector,
                  packed_kernel + vector * sizes.features * width);
    if (!RECURRENT) return;
    Number* to = packed_recurrent + vector * sizes.units * width;
    pack<TOGETHER>(sizes, recurrent, sizes.units, 0, drops, vector, to);
    pack<LATE>(sizes, recurrent, sizes.units, TOGETHER, drops, vector, to + TOGETHER * sizes.units * LANES);
  }

  // Stores what multiplies the recurrent weights of some gates, with their dropout.
  void drop(Number* to, long row, long vector, Vector value, int gate, int count) {
    const long lanes = sizes.lanes(vector), here = row * sizes.padded() + vector * LANES;
    for (int n = 0; n < count; n++)
      store(to + n * sizes.batch * sizes.padded() + here,
            value * load(drops + ((gate + n) * sizes.batch + row) * sizes.units + vector * LANES, lanes));
  }

  // The inputs' products of some steps for some vectors: [step][row][vector][GATES][LANES].
  void project(const Part& part, long step, long steps, Number* to) {
    const long units = sizes.units, width = (part.end - part.begin) * GATES * LANES;
    for (long vector = part.begin; vector < part.end; vector++) {
      long lanes = sizes.lanes(vector);
      Number* at = to + (vector - part.begin) * GATES * LANES;
      for (long s = 0; s < steps; s++)
        for (long row = 0; row < part.rows; row++)
          for (int gate = 0; gate < GATES; gate++) {
            const Number* from = bias + gate * units;
            if (hoisted) from = inputs + (((part.row + row) * sizes.steps + step + s) * GATES + gate) * units;
            store(at + (s * part.rows + row) * width + gate * LANES, load(from + vector * LANES, lanes));
          }
      if (hoisted) continue;
      const Number* packed = packed_kernel + vector * sizes.features * GATES * LANES;
      const Number* from = inputs + (part.row * sizes.steps + step) * sizes.features;
      long by_row = sizes.steps * sizes.features;
      if (part.rows >= steps)
        for (long s = 0; s < steps; s++)
          multiply_gates<GATES>(false, part.rows, sizes.features, from + s * sizes.features, by_row, 0, packed,
                                at + s * part.rows * width, width);
      else
        for (long row = 0; row < part.rows; row++)
          multiply_gates<GATES>(false, steps, sizes.features, from + row * by_row, sizes.features, 0, packed,
                                at + row * width, part.rows * width);
    }
  }

  void run(int index) {
    Part part(sizes, plan, teams, index);
    const long padded = sizes.padded(), vectors = part.end - part.begin, width = vectors * GATES * LANES;
    const long sums_size = part.rows * BLOCKS * LANES;  // of a vector of units
    long ahead = AHEAD / part.rows > 0 ? AHEAD / part.rows : 1;  // steps whose inputs are multiplied at once
    if (ahead > sizes.steps) ahead = sizes.steps;
    Memory projected(ahead * part.rows * width), sums(LATE ? vectors * sums_size : sums_size);
    start(part);
    part.team->meet(&part.round);
    for (long step = 0; step < sizes.steps; step++) {
      if (step % ahead == 0) {
        long left = sizes.steps - step;
        project(part, step, left < ahead ? left : ahead, projected);
      }
      const Number* from_x = projected + step % ahead * part.rows * width;
      Number *h = step % 2 ? next : state[0], *new_h = step % 2 ? state[0] : next;
      for (long vector = part.begin; vector < part.end; vector++) {
        Number* at = sums + (LATE ? (vector - part.begin) * sums_size : 0);
        add_up(part, step, vector, from_x + (vector - part.begin) * GATES * LANES, width, at, h);
        if (LATE)
          wait(part, vector, at, h);
        else
          finish(part, step, vector, at, h, new_h);
      }
      if (LATE) {
        part.team->meet(&part.round);
        for (long vector = part.begin; vector < part.end; vector++)
          finish(part, step, vector, sums + (vector - part.begin) * sums_size, h, new_h);
      }
      part.team->meet(&part.round);
    }
    Number* h = sizes.steps % 2 ? next : state[0];
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
          if (index == 0 && drops) drop(dropped[0], row, vector, value, 0, TOGETHER);
        }
  }

  // A step's sums of one vector of units, as far as they need nothing of that step.
  void add_up(const Part& part, long step, long vector, const Number* from_x, long x_stride, Number* sums,
              const Number* h) {
    const long units = sizes.units, padded = sizes.padded(), lanes = sizes.lanes(vector);
    Vector bias_h[SEPARATE + 1];
    for (int n = 0; n < SEPARATE; n++) bias_h[n] = load(separate_bias + n * units + vector * LANES, lanes);
    for (long row = 0; row < part.rows; row++) {
      Number* at = sums + row * BLOCKS * LANES;
      for (int gate = 0; gate < GATES; gate++)
        store(at + block_of_x(gate) * LANES, load(from_x + row * x_stride + gate * LANES));
      for (int n = 0; n < SEPARATE; n++) store(at + (SUMS + n) * LANES, bias_h[n]);
    }
    if (!RECURRENT) return;
    const Number* left = drops ? dropped[step % 2] : h;
    multiply_gates<TOGETHER>(drops, part.rows, units, left + part.row * padded, padded,
                             drops ? sizes.batch * padded : 0,
                             packed_recurrent + vector * units * GATES * LANES, sums, BLOCKS * LANES);
  }

  // What the late gates of all units wait for, of one vector of units.
  void wait(const Part& part, long vector, const Number* sums, const Number* h) {
    Vector v[VECTORS + 1];
    read_vectors(vector, v);
    for (long row = 0; row < part.rows; row++) {
      const long sequence_row = part.row + row, here = sequence_row * sizes.padded() + vector * LANES;
      Vector z[BLOCKS], before[STATES], result[1];
      read_row(sums + row * BLOCKS * LANES, h, here, z, before);
      late_input(z, before, v, result);
      if (drops)
        drop(waited, sequence_row, vector, result[0], TOGETHER, LATE);
      else
        store(waited + here, result[0]);
    }
  }

  void read_row(const Number* sums, const Number* h, long here, Vector* z, Vector* before) {
    for (int block = 0; block < BLOCKS; block++) z[block] = load(sums + block * LANES);
    before[0] = load(h + here);
    for (int index = 1; index < STATES; index++) before[index] = load(state[index] + here);
  }

  // The late products of one vector of units, the cell's equation, and what is to be kept.
  void finish(const Part& part, long step, long vector, Number* sums, const Number* h, Number* new_h) {
    const long units = sizes.units, padded = sizes.padded(), lanes = sizes.lanes(vector);
    Vector v[VECTORS + 1];
    read_vectors(vector, v);
    if (LATE)
      multiply_gates<LATE>(drops, part.rows, units, waited + part.row * padded, padded,
                           drops ? sizes.batch * padded : 0,
                           packed_recurrent + (vector * GATES + TOGETHER) * units * LANES,
                           sums + block_of_h(TOGETHER) * LANES, BLOCKS * LANES);
    for (long row = 0; row < part.rows; row++) {
      const long sequence_row = part.row + row, moment = sequence_row * sizes.steps + step;
      const long here = sequence_row * padded + vector * LANES, unit = vector * LANES;
      Vector z[BLOCKS], before[STATES], after[STATES];
      read_row(sums + row * BLOCKS * LANES, h, here, z, before);
      update(z, before, v, after);
      if (mask && !mask[moment])
        for (int index = 0; index < STATES; index++) after[index] = before[index];
      store(new_h + here, after[0]);
      if (drops) drop(dropped[(step + 1) % 2], sequence_row, vector, after[0], 0, TOGETHER);
      for (int index = 1; index < STATES; index++) store(state[index] + here, after[index]);
      for (int index = 0; index < STATES; index++)
        if (kept[index]) keep(kept[index] + moment * units + unit, units, after[index], lanes);
      if (outputs)
        keep(outputs + moment * units + unit, units, shown->at(sequence_row, step) ? after[OUTPUT] : Vector{}, lanes);
      if (!products) continue;
      for (int gate = 0; gate < GATES; gate++)
        keep(products + (moment * GATES + gate) * units + unit, GATES * units, z[block_of_h(gate)], lanes);
      for (int n = 0; n < SEPARATE; n++)
        keep(apart + (moment * SEPARATE + n) * units + unit, SEPARATE * units, z[block_of_x(SUMS + n)], lanes);
    }
  }

  // Stores a part of a stack's moment, which the next step does `width` numbers further on.
  static void keep(Number* to, long width, Vector value, long lanes) {
    store(to, value, lanes);
    expect(to + width);
  }
};

// --- backward

struct Backward : Pass {
  const Number *products, *apart, *of_outputs, *kept[STATES], *of_final[STATES];
  // `multiplied` and `waited` are what multiplied the recurrent weights of the gates together and the late ones
  Number *of_products, *of_inputs, *multiplied, *waited, *of_initial[STATES];
  // of all rows, padded; `of_gates` are [gate][row][unit], after the gates the inputs' parts of separate ones
  Number *packed, *of_state[STATES], *of_waited, *of_gates[2], *sums;
  // Where the gradients of weights are summed here: the inputs' steps are read, nothing is written for later products.
  bool sums_weights;
  const Number *inputs, *kernel;
  // `of_weights` are of each group, [feature, then unit that is multiplied][gate][unit]; a step's `late_inputs`
  // of all rows
  Number *packed_kernel, *of_weights, *late_inputs;
  static constexpr int SUMMED = BLOCKS + VECTORS;  // over all sequences and steps

  // The transposed weights of a pair of vectors of `size` rows: [gate][unit][N][LANES].
  void pack_pair(const Number* weights, long size, long pair, Number* packed) {
    const long vectors = (size + LANES - 1) / LANES, first = pair * PAIR;
    const long N = vectors - first < PAIR ? vectors - first : PAIR;
    Number* to = packed + first * GATES * sizes.units * LANES;
    memset(to, 0, N * GATES * sizes.units * LANES * sizeof(Number));
    for (long n = 0; n < N; n++)
      for (long lane = 0; lane < LANES && lane < size - (first + n) * LANES; lane++) {
        const Number* from = weights + ((first + n) * LANES + lane) * GATES * sizes.units;
        for (long k = 0; k < GATES * sizes.units; k++) to[(k * N + n) * LANES + lane] = from[k];
      }
  }
  void pack_pair(long pair) {
    const long recurrent_pairs = RECURRENT ? pairs(sizes.units) : 0;
    if (pair < recurrent_pairs)
      pack_pair(recurrent, sizes.units, pair, packed);
    else
      pack_pair(kernel, sizes.features, pair - recurrent_pairs, packed_kernel);
  }
  static long pairs(long size) { return ((size + LANES - 1) / LANES + PAIR - 1) / PAIR; }
  long all_pairs() const {
    return (RECURRENT ? pairs(sizes.units) : 0) + (sums_weights && !few_features() ? pairs(sizes.features) : 0);
  }
  long weights_size() const { return (sizes.features + (RECURRENT ? sizes.units : 0)) * GATES * sizes.padded(); }

  void run(int index) {
    Part part(sizes, plan, teams, index);
    Memory product(part.rows * PAIR * LANES), rows_of_inputs(sums_weights && mask ? part.rows * sizes.features : 0);
    Number* own_sums = sums + index * SUMMED * sizes.padded();
    memset(own_sums, 0, SUMMED * sizes.padded() * sizeof(Number));
    for (int state = 0; state < STATES; state++)
      for (long row = part.row; row < part.row + part.rows; row++)
        for (long vector = part.begin; vector < part.end; vector++)
          store(of_state[state] + row * sizes.padded() + vector * LANES,
                load(of_final[state] + row * sizes.units + vector * LANES, sizes.lanes(vector)));
    for (long step = sizes.steps - 1; step >= 0; step--) {
      Number* gates = of_gates[step % 2];
      for (long vector = part.begin; vector < part.end; vector++)
        through_update(part, step, vector, gates, own_sums + vector * LANES);
      part.team->meet(&part.round);
      if (LATE) {
        through_weights(part, gates, TOGETHER, LATE, product, of_waited);
        for (long vector = part.begin; vector < part.end; vector++)
          through_late_input(part, step, vector, gates, own_sums + vector * LANES);
        part.team->meet(&part.round);
      }
      if (RECURRENT) through_weights(part, gates, 0, TOGETHER, product, of_state[0]);
      if (!sums_weights) continue;
      through_kernel(part, step, gates, product);
      of_kernel(part, step, gates, rows_of_inputs);
      if (RECURRENT) of_recurrent(part, step, gates);
    }
    for (int state = 0; state < CARRIED; state++)
      for (long row = part.row; row < part.row + part.rows; row++)
        for (long vector = part.begin; vector < part.end; vector++)
          store(of_initial[state] + row * sizes.units + vector * LANES,
                load(of_state[state] + row * sizes.padded() + vector * LANES), sizes.lanes(vector));
  }

  // What a step of a row read, for one vector of units.
  void read_step(long row, long step, long unit, long lanes, Vector* z, Vector* before) {
    const long units = sizes.units, moment = row * sizes.steps + step;
    for (int gate = 0; gate < GATES; gate++)
      z[block_of_h(gate)] = recall(products + (moment * GATES + gate) * units + unit, GATES * units, lanes);
    for (int n = 0; n < SEPARATE; n++)
      z[block_of_x(SUMS + n)] = recall(apart + (moment * SEPARATE + n) * units + unit, SEPARATE * units, lanes);
    for (int index = 0; index < STATES; index++)
      before[index] = index >= CARRIED ? Vector{}
                      : step           ? recall(kept[index] + (moment - 1) * units + unit, units, lanes)
                                       : load(initial[index] + row * units + unit, lanes);
  }

  // Loads a part of a stack's moment, which the step before does `width` numbers further in front.
  static Vector recall(const Number* from, long width, long lanes) {
    expect(from - width);
    return load(from, lanes);
  }

  // The gradients of a step's blocks are known: nothing else reads its products, whose place they may take.
  void write(long row, long step, long unit, long lanes, const Vector* of_blocks, Vector h, Number* gates) {
    const long units = sizes.units, moment = row * sizes.steps + step;
    if (RECURRENT && TOGETHER > 0 && !sums_weights) {
      store(multiplied + moment * units + unit, h, lanes);
      expect(multiplied + (moment - 1) * units + unit);
    }
    for (int n = 0; sums_weights && n < SEPARATE; n++)
      store(gates + ((GATES + n) * sizes.batch + row) * sizes.padded() + unit, of_blocks[block_of_x(SUMS + n)]);
    for (int gate = 0; gate < GATES; gate++) {
      Vector of_h = of_blocks[block_of_h(gate)];
      if (gate < TOGETHER) store(gates + (gate * sizes.batch + row) * sizes.padded() + unit, of_h);
      if (sums_weights) continue;
      store(of_products + (moment * GATES + gate) * units + unit, of_h, lanes);
      if (SEPARATE)
        store(of_inputs + (moment * GATES + gate) * units + unit, of_blocks[block_of_x(gate)], lanes);
    }
  }

  // Where the gradient of a block waits for that of the late gates' input.
  Number* buffer(Number* gates, int block, long here) {
    int index = block;
    if (block >= TOGETHER) index = block < TOGETHER + SEPARATE ? block + LATE : block - SEPARATE;
    return gates + index * sizes.batch * sizes.padded() + here;
  }

  // Sums over the rows of a step, of one vector of units: the gradients of blocks, then of vectors.
  struct Totals {
    Vector of[SUMMED] = {};
    void add(const Vector* of_blocks, const Vector* of_vectors) {
      for (int block = 0; block < BLOCKS; block++) of[block] += of_blocks[block];
      for (int n = 0; n < VECTORS; n++) of[BLOCKS + n] += of_vectors[n];
    }
    void add_to(Number* own_sums, long padded) const {
      for (int n = 0; n < SUMMED; n++, own_sums += padded) store(own_sums, load(own_sums) + of[n]);
    }
  };

  // The gradients of a step's blocks and of the states before it, without what comes through the weights.
  void through_update(const Part& part, long step, long vector, Number* gates, Number* own_sums) {
    const long units = sizes.units, padded = sizes.padded(), lanes = sizes.lanes(vector);
    const long unit = vector * LANES;
    Vector v[VECTORS + 1];
    Totals totals;
    read_vectors(vector, v);
    for (long row = part.row; row < part.row + part.rows; row++) {
      const long moment = row * sizes.steps + step, here = row * padded + unit;
      Vector z[BLOCKS], before[STATES], upstream[STATES];
      Vector of_blocks[BLOCKS] = {}, of_states[STATES], of_vectors[VECTORS + 1];
      read_step(row, step, unit, lanes, z, before);
      for (int index = 0; index < STATES; index++) upstream[index] = load(of_state[index] + here);
      if (of_outputs && shown->at(row, step))
        upstream[OUTPUT] += recall(of_outputs + moment * units + unit, units, lanes);
      if (mask && !mask[moment]) {  // what the step did not change passes it by
        for (int index = 0; index < STATES; index++) of_states[index] = upstream[index];
      } else {
        pull_back_update(z, before, v, upstream, of_blocks, of_states, of_vectors);
        totals.add(of_blocks, of_vectors);
      }
      for (int index = 0; index < STATES; index++) store(of_state[index] + here, of_states[index]);
      if (LATE) {
        for (int block = 0; block < BLOCKS; block++) store(buffer(gates, block, here), of_blocks[block]);
        store(of_waited + here, Vector{});
      } else {
        write(row, step, unit, lanes, of_blocks, before[0], gates);
      }
    }
    totals.add_to(own_sums, padded);
  }

  // Adds what comes through the late gates' input.
  void through_late_input(const Part& part, long step, long vector, Number* gates, Number* own_sums) {
    const long units = sizes.units, padded = sizes.padded(), lanes = sizes.lanes(vector);
    const long unit = vector * LANES;
    Vector v[VECTORS + 1];
    Totals totals;
    read_vectors(vector, v);
    for (long row = part.row; row < part.row + part.rows; row++) {
      const long moment = row * sizes.steps + step, here = row * padded + unit;
      Vector z[BLOCKS], before[STATES], upstream[1] = {load(of_waited + here)}, result[1] = {};
      Vector of_blocks[BLOCKS] = {}, of_states[STATES], of_vectors[VECTORS + 1];
      read_step(row, step, unit, lanes, z, before);
      if (!mask || mask[moment]) {
        late_input(z, before, v, result);
        pull_back_late_input(z, before, v, upstream, of_blocks, of_states, of_vectors);
        totals.add(of_blocks, of_vectors);
        for (int index = 0; index < STATES; index++)
          store(of_state[index] + here, load(of_state[index] + here) + of_states[index]);
      }
      for (int block = 0; block < BLOCKS; block++) of_blocks[block] += load(buffer(gates, block, here));
      if (sums_weights)
        store(late_inputs + row * padded + unit, result[0]);
      else
        store(waited + moment * units + unit, result[0], lanes);
      write(row, step, unit, lanes, of_blocks, before[0], gates);
    }
    totals.add_to(own_sums, padded);
  }

  // Adds to `to` what comes through the recurrent weights of some gates, for the part's vectors of units.
  void through_weights(const Part& part, const Number* gates, int gate, int count, Number* product, Number* to) {
    for (long vector = part.begin; vector < part.end; vector += PAIR)
      if (part.end - vector < PAIR)
        through_weights_of<1>(part, vector, gates, gate, count, product, to);
      else
        through_weights_of<PAIR>(part, vector, gates, gate, count, product, to);
  }
  template <int N>
  void through_weights_of(const Part& part, long vector, const Number* gates, int first, int count,
                          Number* product, Number* to) {
    static const Places<N> in_order;
    const long padded = sizes.padded();
    const Number* with = packed + vector * GATES * sizes.units * LANES;
    for (int gate = first; gate < first + count; gate++) {
      if (gate == first || drops) memset(product, 0, part.rows * N * LANES * sizeof(Number));
      multiply<N>(part.rows, sizes.units, gates + (gate * sizes.batch + part.row) * padded, padded,
                  with + gate * sizes.units * N * LANES, product, N * LANES, in_order.at);
      if (gate < first + count - 1 && !drops) continue;
      for (long row = 0; row < part.rows; row++)
        for (int n = 0; n < N; n++) {
          Vector more = load(product + (row * N + n) * LANES);
          const long unit = (vector + n) * LANES, sequence_row = part.row + row;
          if (drops)
            more *= load(drops + (gate * sizes.batch + sequence_row) * sizes.units + unit,
                         sizes.lanes(vector + n));
          Number* at = to + sequence_row * padded + unit;
          store(at, load(at) + more);
        }
    }
  }

  // The gradient of a step's inputs, of the part's share of the features.
  void through_kernel(const Part& part, long step, const Number* gates, Number* product) {
    if (few_features()) return through_few_features(part, step, gates);
    const long all = pairs(sizes.features), last = all * (part.member + 1) / plan.members;
    for (long pair = all * part.member / plan.members; pair < last; pair++)
      if (sizes.features - pair * PAIR * LANES <= LANES)
        through_kernel_of<1>(part, step, pair * PAIR, gates, product);
      else
        through_kernel_of<PAIR>(part, step, pair * PAIR, gates, product);
  }
  template <int N>
  void through_kernel_of(const Part& part, long step, long vector, const Number* gates, Number* product) {
    static const Places<N> in_order;
    const long padded = sizes.padded(), units = sizes.units, features = sizes.features, first = vector * LANES;
    const Number* with = packed_kernel + first * GATES * units;
    memset(product, 0, part.rows * N * LANES * sizeof(Number));
    for (int gate = 0; gate < GATES; gate++)
      multiply<N>(part.rows, units, gates + (buffer_of_x(gate) * sizes.batch + part.row) * padded, padded,
                  with + gate * units * N * LANES, product, N * LANES, in_order.at);
    for (long row = 0; row < part.rows; row++)
      for (long n = 0; n < N; n++)
        store(of_inputs + ((part.row + row) * sizes.steps + step) * features + first + n * LANES,
              load(product + (row * N + n) * LANES), features - first - n * LANES);
  }
  // Where features are but a small part of a vector, each one's gradient is a sum over the units: a member does
  // them all.
  bool few_features() const { return 8 * sizes.features <= LANES && sizes.units % LANES == 0; }
  void through_few_features(const Part& part, long step, const Number* gates) {
    const long units = sizes.units, features = sizes.features;
    for (long row = part.row; row < part.row + part.rows && part.member == 0; row++)
      for (long feature = 0; feature < features; feature++) {
        Vector sum = {};
        for (int gate = 0; gate < GATES; gate++)
          for (long unit = 0; unit < units; unit += LANES)
            sum += load(gates + (buffer_of_x(gate) * sizes.batch + row) * units + unit) *
                   load(kernel + (feature * GATES + gate) * units + unit);
        of_inputs[(row * sizes.steps + step) * features + feature] = total(sum);
      }
  }
  // Where the gradients of a gate's blocks lie.
  static constexpr int buffer_of_x(int gate) { return gate < SUMS || gate >= TOGETHER ? gate : GATES + gate - SUMS; }
  static constexpr int buffer_of_h(int gate) { return gate; }

  // Adds to the gradient of the kernel. What masked steps hold, be it NaN, is passed over.
  void of_kernel(const Part& part, long step, const Number* gates, Number* rows_of_inputs) {
    const long features = sizes.features, by_row = sizes.steps * features;
    const Number* left = inputs + (part.row * sizes.steps + step) * features;
    for (long row = 0; mask && row < part.rows; row++)
      for (long feature = 0; feature < features; feature++) {
        const bool is_taken = mask[(part.row + row) * sizes.steps + step];
        rows_of_inputs[row * features + feature] = is_taken ? left[row * by_row + feature] : 0;
      }
    of_products_with<GATES>(part, features, mask ? rows_of_inputs : left, mask ? features : by_row, 0, buffer_of_x,
                            gates,
                            of_weights + part.group * weights_size());
  }
  // The same of the recurrent weights.
  void of_recurrent(const Part& part, long step, const Number* gates) {
    const long units = sizes.units, padded = sizes.padded();
    const Number* h = step ? kept[0] + (part.row * sizes.steps + step - 1) * units : initial[0] + part.row * units;
    Number* to = of_weights + part.group * weights_size() + sizes.features * GATES * padded;
    of_products_with<TOGETHER>(part, units, h, step ? sizes.steps * units : units, 0, buffer_of_h, gates, to);
    of_products_with<LATE>(part, units, late_inputs + part.row * padded, padded, TOGETHER, buffer_of_h, gates, to);
  }
  // Adds to the gradient of the weights of COUNT gates what a step's rows of `left` and the gates' gradients give.
  template <int COUNT>
  void of_products_with(const Part& part, long rows, const Number* left, long left_stride, int gate,
                        int (*buffer_of)(int), const Number* gates, Number* to) {
    constexpr int N = wide(COUNT);
    const long padded = sizes.padded();
    for (int first = gate; first < gate + COUNT; first += N) {
      long place[N], sum_place[N];
      for (int n = 0; n < N; n++) {
        place[n] = buffer_of(first + n) * sizes.batch * padded;
        sum_place[n] = (first + n) * padded;
      }
      for (long vector = part.begin; vector < part.end; vector++)
        fused_rnn_multiply_turned(N, rows, part.rows, left, left_stride,
                                  gates + part.row * padded + vector * LANES, padded, place, to + vector * LANES,
                                  GATES * padded, sum_place);
    }
  }
};

// --- the operations

struct Settings {
  bool save = false, sequence = false, zero_masked = false, sums_weights = false;
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
  } else {
    TF_OpKernelConstruction_GetAttrBool(construction, "sums_weights", &flag, status);
    settings->sums_weights = flag;
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
  const Number* inputs = tensors.next("inputs", sizes.batch * sizes.steps * sizes.features);
  const bool hoisted = tensors.rank() == 1;  // no kernel: the inputs are the gates' products already
  sizes.units = (hoisted ? sizes.features : tensors.dimension(1)) / GATES;
  const long width = GATES * sizes.units;
  const Number* weights = tensors.optional("kernel", sizes.features * width);
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
  forward.outputs = tensors.output_if(masked, sizes.batch, sizes.steps, sizes.units);
  forward.products = tensors.output_if(settings.save, sizes.batch, sizes.steps, GATES * sizes.units);
  forward.apart = tensors.output_if(settings.save && SEPARATE > 0, sizes.batch, sizes.steps, SEPARATE * sizes.units);
  for (int index = 0; index < STATES; index++) {
    bool kept = (settings.save && index < CARRIED) || (settings.sequence && !masked && index == OUTPUT);
    forward.kept[index] = tensors.output_if(kept, sizes.batch, sizes.steps, sizes.units);
  }
  for (int index = 0; index < STATES; index++)
    forward.final[index] = tensors.output(2, sizes.batch, sizes.units);
  if (tensors.failed()) return;

  const long all_rows = sizes.batch * sizes.padded(), per_depth = sizes.padded() * GATES;
  Memory packed_kernel(hoisted ? 0 : sizes.features * per_depth), packed(RECURRENT ? sizes.units * per_depth : 0);
  Memory states(all_rows * (STATES + 1)), dropped(forward.drops ? 2 * TOGETHER * all_rows : 0);
  Memory waited((forward.drops ? LATE : LATE > 0) * all_rows);
  if (!tensors.granted({packed_kernel, packed, states, dropped, waited})) return;
  forward.waited = waited;
  forward.packed_kernel = packed_kernel;
  forward.packed_recurrent = packed;
  for (int index = 0; index < STATES; index++) forward.state[index] = states + index * all_rows;
  forward.next = states + STATES * all_rows;
  for (int side = 0; side < 2; side++) forward.dropped[side] = dropped + side * TOGETHER * all_rows;
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

// The gradient of some rows of weights (rows, GATES * units), from those of all groups.
void add_up_groups(const Number* of_groups, const Sizes& sizes, int groups, long first, long rows, Number* to) {
  const long padded = sizes.padded(), size = (sizes.features + (RECURRENT ? sizes.units : 0)) * GATES * padded;
  for (long gate = first * GATES; gate < (first + rows) * GATES; gate++)
    for (long unit = 0; unit < sizes.units; unit++) {
      Number total = 0;
      for (int group = 0; group < groups; group++) total += of_groups[group * size + gate * padded + unit];
      *to++ = total;
    }
}

void compute_backward(void* kernel, TF_OpKernelContext* context) {
  const Settings& settings = *static_cast<Settings*>(kernel);
  FlushDenormals flush;
  Tensors tensors(context);
  if (tensors.failed()) return;
  Sizes sizes;
  sizes.batch = tensors.dimension(0);
  sizes.steps = tensors.dimension(1);
  sizes.units = tensors.dimension(2) / GATES;
  sizes.features = 0;
  Backward backward = {{sizes, Plan(sizes, 0, settings.threads)}};
  const long width = GATES * sizes.units, moments = sizes.batch * sizes.steps;
  backward.products = tensors.next("products", moments * width);
  backward.apart = tensors.next("products apart", SEPARATE * moments * sizes.units);
  backward.read(tensors);
  const bool sums_weights = backward.sums_weights = settings.sums_weights;
  if (sums_weights) backward.sizes.features = sizes.features = tensors.dimension(2);
  backward.inputs = tensors.optional("inputs", moments * sizes.features);
  backward.kernel = tensors.optional("kernel", sizes.features * width);
  for (int index = 0; index < CARRIED; index++)
    backward.kept[index] = tensors.next("states", moments * sizes.units);
  backward.of_outputs = tensors.optional("gradient of outputs", moments * sizes.units);
  for (int index = 0; index < STATES; index++)
    backward.of_final[index] = tensors.next("gradient of a state", sizes.batch * sizes.units);
  if (tensors.failed()) return;

  // What the gradients need takes the place of what is read for the last time, if it is as large.
  backward.of_products = sums_weights ? tensors.output_if(false, 0, 0, 0) : tensors.output_instead_of(0);
  backward.of_inputs = tensors.output_if(SEPARATE || sums_weights, sizes.batch, sizes.steps,
                                         sums_weights ? sizes.features : width);
  const bool multiplies = RECURRENT && TOGETHER > 0 && !sums_weights;
  if (multiplies && SEPARATE == 1)
    backward.multiplied = tensors.output_instead_of(1);
  else
    backward.multiplied = tensors.output_if(multiplies, sizes.batch, sizes.steps, sizes.units);
  backward.waited = tensors.output_if(LATE && !sums_weights, sizes.batch, sizes.steps, sizes.units);
  const bool sums_recurrent = RECURRENT && sums_weights;
  Number* of_kernel = tensors.output(2, sums_weights ? sizes.features : 0, width);
  Number* of_recurrent = tensors.output(2, sums_recurrent ? sizes.units : 0, width);
  Number* of_bias = tensors.output(1, width);
  Number* of_separate_bias = tensors.output(1, SEPARATE * sizes.units);
  Number* of_vectors[VECTORS + 1];
  for (int n = 0; n < VECTORS; n++) of_vectors[n] = tensors.output(1, sizes.units);
  for (int index = 0; index < CARRIED; index++)
    backward.of_initial[index] = tensors.output(2, sizes.batch, sizes.units);
  if (tensors.failed()) return;

  const long all_rows = sizes.batch * sizes.padded(), summed = Backward::SUMMED * sizes.padded();
  Memory packed(RECURRENT ? sizes.padded() * GATES * sizes.units : 0);
  Memory states(all_rows * (STATES + 2 * BLOCKS)), sums(backward.plan.parts() * summed);
  Memory of_waited(LATE ? all_rows : 0), late_inputs(LATE && sums_weights ? all_rows : 0);
  const long vectors_of_features = sums_weights && !backward.few_features() ? (sizes.features + LANES - 1) / LANES : 0;
  const long of_weights_size = sums_weights ? backward.plan.groups * backward.weights_size() : 0;
  Memory packed_kernel(vectors_of_features * LANES * width), of_weights(of_weights_size);
  if (!tensors.granted({packed, states, sums, of_waited, late_inputs, packed_kernel, of_weights})) return;
  backward.late_inputs = late_inputs;
  backward.packed_kernel = packed_kernel;
  backward.of_weights = of_weights;
  memset(of_weights, 0, of_weights_size * sizeof(Number));
  backward.of_waited = of_waited;
  backward.packed = packed;
  backward.sums = sums;
  for (int index = 0; index < STATES; index++) backward.of_state[index] = states + index * all_rows;
  for (int side = 0; side < 2; side++)
    backward.of_gates[side] = states + (STATES + side * BLOCKS) * all_rows;
  const Shown shown(backward.mask, settings.zero_masked, sizes);
  backward.shown = &shown;
  Teams teams(backward.plan);
  backward.teams = teams.at;
  fused_rnn_in_parallel(
      backward.plan.packs_alone, backward.all_pairs(),
      [](void* self, int pair) { static_cast<Backward*>(self)->pack_pair(pair); }, &backward);
  fused_rnn_in_parallel(
      backward.plan.threads == 1, backward.plan.parts(),
      [](void* self, int part) { static_cast<Backward*>(self)->run(part); }, &backward);

  Number* of_sums[Backward::SUMMED];
  for (int gate = 0; gate < GATES; gate++) of_sums[block_of_x(gate)] = of_bias + gate * sizes.units;
  for (int n = 0; n < SEPARATE; n++) of_sums[SUMS + n] = of_separate_bias + n * sizes.units;
  for (int n = 0; n < VECTORS; n++) of_sums[BLOCKS + n] = of_vectors[n];
  for (int n = 0; n < Backward::SUMMED; n++) {
    Number* to = of_sums[n];
    for (long unit = 0; unit < sizes.units; unit++) {
      Number total = 0;
      for (int part = 0; part < backward.plan.parts(); part++)
        if (Part(sizes, backward.plan, teams.at, part).holds(unit / LANES))
          total += sums[part * summed + n * sizes.padded() + unit];
      to[unit] = total;
    }
  }
  if (sums_weights) add_up_groups(of_weights, sizes, backward.plan.groups, 0, sizes.features, of_kernel);
  if (sums_recurrent) add_up_groups(of_weights, sizes, backward.plan.groups, sizes.features, sizes.units, of_recurrent);
}

struct Registration {
  Registration() {
    const char* const forward[] = {"save: bool", "sequence: bool", "zero_masked: bool", "threads: int", nullptr};
    const char* const backward[] = {"zero_masked: bool", "sums_weights: bool", "threads: int", nullptr};
    add_operation(NAME "Forward", FORWARD, forward, make_settings, compute_forward, delete_settings);
    add_operation(NAME "Backward", BACKWARD, backward, make_settings, compute_backward, delete_settings);
  }
} registration;

}  // namespace
