// Vectors of the numbers that a cell computes with, and the functions of them that its equation may use.
//
// They are floats, or doubles where the compiler is told that BITS is 64.

#pragma once

#include <stdint.h>

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, SUMS_IN_REGISTERS = 24;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32, SUMS_IN_REGISTERS = 12;
#elif defined(__aarch64__)
constexpr int VECTOR_BYTES = 16, SUMS_IN_REGISTERS = 24;
#else
constexpr int VECTOR_BYTES = 16, SUMS_IN_REGISTERS = 12;
#endif
#if BITS == 64
typedef double Number;
typedef int64_t Integer;
#define LIBRARY(name) __builtin_##name
#else
typedef float Number;
typedef int32_t Integer;
#define LIBRARY(name) __builtin_##name##f
#endif
constexpr int LANES = VECTOR_BYTES / sizeof(Number);
typedef Number Vector __attribute__((vector_size(VECTOR_BYTES)));
typedef decltype(Vector{} == Vector{}) Mask;  // of integers: of a lane all bits or none
constexpr Integer SIGN = Integer(1ull << (sizeof(Number) * 8 - 1));  // the bit of it
constexpr Number INFINITE = __builtin_inff();
constexpr Number operator""_n(long double number) { return number; }

inline Vector load(const Number* from) {
  Vector vector;
  __builtin_memcpy(&vector, from, sizeof vector);
  return vector;
}
inline void store(Number* to, Vector vector) { __builtin_memcpy(to, &vector, sizeof vector); }

// The first `lanes` of a vector; the others are 0.
inline Vector load(const Number* from, long lanes) {
  if (lanes >= LANES) return load(from);
  Vector vector = {};
  for (long lane = 0; lane < lanes; lane++) vector[lane] = from[lane];
  return vector;
}
inline void store(Number* to, Vector vector, long lanes) {
  if (lanes >= LANES) return store(to, vector);
  for (long lane = 0; lane < lanes; lane++) to[lane] = vector[lane];
}

// The sum of a vector's elements, by halves.
inline Number total(Vector vector) {
  Number left[LANES];
  store(left, vector);
  for (int half = LANES / 2; half; half /= 2)
    for (int lane = 0; lane < half; lane++) left[lane] += left[lane + half];
  return left[0];
}

// --- functions that a cell's equation may use; NaN stays NaN

// A result by itself: where it is a product, it is rounded before anything is added to it, as in TensorFlow, so
// that `a * b - a * b` is 0. GCC would join the two to one instruction across statements; Clang does not.
inline Vector rounded(Vector result) {
#if defined(__x86_64__) && !defined(__clang__)
  asm("" : "+v"(result));
#elif defined(__aarch64__) && !defined(__clang__)
  asm("" : "+w"(result));
#endif
  return result;
}
// Integers are those of TensorFlow's int32, whatever the width of a lane.
inline Mask rounded(Mask result) {
  constexpr int SURPLUS = sizeof(Integer) * 8 - 32;
  return result << SURPLUS >> SURPLUS;
}

inline Vector all(Number number) { return number - Vector{}; }
inline Mask all(int number) { return Integer{number} - Mask{}; }
inline Vector minimum(Vector a, Vector b) { return a < b ? a : (a == a ? b : a); }
inline Vector maximum(Vector a, Vector b) { return a > b ? a : (a == a ? b : a); }
inline Vector select(Mask where, Vector a, Vector b) { return where ? a : b; }
inline Mask select(Mask where, Mask a, Mask b) { return where ? a : b; }
inline Vector absolute(Vector x) { return (Vector)((Mask)x & ~SIGN); }
inline Vector sign(Vector x) {
  return x > 0.0_n ? all(1.0_n) : x < 0.0_n ? all(-1.0_n) : x == 0.0_n ? all(0.0_n) : x;
}
inline Vector bounded(Vector x, Number least, Number most) {
  x = x < least ? all(least) : x;
  return x > most ? all(most) : x;
}
// 0 where the factor is 0, whatever else there is.
inline Vector product_or_zero(Vector x, Vector factor) { return factor == 0.0_n ? all(0.0_n) : x * factor; }

// Numbers too small for a normalised float count as 0 here and in TensorFlow.
inline Vector normalised(Vector x) { return x == 0.0_n ? (Vector)((Mask)x & SIGN) : x; }

#if BITS == 64
#include "doubles.h"
#else
#include "floats.h"
#endif

// The rarer ones lane by lane. Those of the C library reckon with numbers too small for a normalised float.
template <typename Function>
inline Vector each(Vector x, Function function) {
  x = normalised(x);
  for (int lane = 0; lane < LANES; lane++) x[lane] = function(x[lane]);
  return x;
}
inline Vector square_root(Vector x) { return each(x, [](Number a) { return LIBRARY(sqrt)(a); }); }
inline Vector expm1(Vector x) { return each(x, [](Number a) { return LIBRARY(expm1)(a); }); }
inline Vector erf(Vector x) { return each(x, [](Number a) { return LIBRARY(erf)(a); }); }
inline Vector erfc(Vector x) { return each(x, [](Number a) { return LIBRARY(erfc)(a); }); }
inline Vector sine(Vector x) { return each(x, [](Number a) { return LIBRARY(sin)(a); }); }
inline Vector cosine(Vector x) { return each(x, [](Number a) { return LIBRARY(cos)(a); }); }
inline Vector tangent(Vector x) { return each(x, [](Number a) { return LIBRARY(tan)(a); }); }
inline Vector area_cosine(Vector x) { return each(x, [](Number a) { return LIBRARY(acosh)(a); }); }
inline Vector area_sine(Vector x) { return each(x, [](Number a) { return LIBRARY(asinh)(a); }); }
inline Vector area_tangent(Vector x) { return each(x, [](Number a) { return LIBRARY(atanh)(a); }); }
inline Vector arc_sine(Vector x) { return each(x, [](Number a) { return LIBRARY(asin)(a); }); }
inline Vector arc_cosine(Vector x) { return each(x, [](Number a) { return LIBRARY(acos)(a); }); }
inline Vector arc_tangent(Vector x) { return each(x, [](Number a) { return LIBRARY(atan)(a); }); }
inline Vector hyperbolic_sine(Vector x) { return each(x, [](Number a) { return LIBRARY(sinh)(a); }); }
inline Vector hyperbolic_cosine(Vector x) { return each(x, [](Number a) { return LIBRARY(cosh)(a); }); }
inline Vector round_down(Vector x) { return each(x, [](Number a) { return LIBRARY(floor)(a); }); }
inline Vector round_up(Vector x) { return each(x, [](Number a) { return LIBRARY(ceil)(a); }); }
inline Vector round_to_even(Vector x) { return each(x, [](Number a) { return LIBRARY(rint)(a); }); }
// What is left of x / y, with the sign of y.
inline Vector rest_of_division(Vector x, Vector y) {
  x = normalised(x), y = normalised(y);
  for (int lane = 0; lane < LANES; lane++) {
    Number rest = LIBRARY(fmod)(x[lane], y[lane]);
    x[lane] = rest != 0 && (rest < 0) != (y[lane] < 0) ? rest + y[lane] : rest;
  }
  return x;
}
inline Mask rest_of_division(Mask x, Mask y) {
  for (int lane = 0; lane < LANES; lane++) {
    Integer rest = y[lane] ? x[lane] % y[lane] : 0;
    x[lane] = rest && (rest < 0) != (y[lane] < 0) ? rest + y[lane] : rest;
  }
  return x;
}
inline Vector power(Vector x, Vector y) {
  x = normalised(x), y = normalised(y);
  for (int lane = 0; lane < LANES; lane++) x[lane] = LIBRARY(pow)(x[lane], y[lane]);
  return x;
}
inline Vector softplus(Vector x) {
  const Vector power = exp(x);  // beyond the bound log(1 + e^x) is x or e^x to rounding
  return x > SOFTPLUS_BOUND ? x : x < -SOFTPLUS_BOUND ? power : log1p(power);
}
