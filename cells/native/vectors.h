// Vectors of floats, and the functions of them that a cell's equation may use.

#pragma once

#include <stdint.h>

#if defined(__AVX512F__)
constexpr int LANES = 16, SUMS_IN_REGISTERS = 24;
#elif defined(__AVX__)
constexpr int LANES = 8, SUMS_IN_REGISTERS = 12;
#elif defined(__aarch64__)
constexpr int LANES = 4, SUMS_IN_REGISTERS = 24;
#else
constexpr int LANES = 4, SUMS_IN_REGISTERS = 12;
#endif
typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef int32_t Mask __attribute__((vector_size(LANES * 4)));  // of a lane all bits or none

inline Vector load(const float* from) {
  Vector vector;
  __builtin_memcpy(&vector, from, sizeof vector);
  return vector;
}
inline void store(float* to, Vector vector) { __builtin_memcpy(to, &vector, sizeof vector); }

// The first `lanes` of a vector; the others are 0.
inline Vector load(const float* from, long lanes) {
  if (lanes >= LANES) return load(from);
  Vector vector = {};
  for (long lane = 0; lane < lanes; lane++) vector[lane] = from[lane];
  return vector;
}
inline void store(float* to, Vector vector, long lanes) {
  if (lanes >= LANES) return store(to, vector);
  for (long lane = 0; lane < lanes; lane++) to[lane] = vector[lane];
}

// --- functions that a cell's equation may use; NaN stays NaN

inline Vector all(float number) { return number - Vector{}; }
inline Vector minimum(Vector a, Vector b) { return a < b ? a : (a == a ? b : a); }
inline Vector maximum(Vector a, Vector b) { return a > b ? a : (a == a ? b : a); }
inline Vector select(Mask where, Vector a, Vector b) { return where ? a : b; }

// 1 / x to the last bits: an estimate and a step of Newton's method, several times faster than a division.
inline Vector reciprocal(Vector x) {
#if defined(__AVX512F__)
  Vector estimate = (Vector)__builtin_ia32_rcp14ps512_mask(x, Vector{}, (unsigned short)-1);
  return estimate * (2.0f - x * estimate);
#else
  return 1.0f / x;
#endif
}

// e^x = 2^n e^r with r in [-ln 2 / 2, ln 2 / 2]: e^r as in Cephes' expf, and n.
inline Vector exp_of_rest(Vector x, Mask* n) {
  const float rounder = 12582912.0f;  // 1.5 * 2^23: adding it leaves an integer in the last bits
  Vector rounded = x * 1.44269504f + rounder;
  *n = (Mask)rounded - 0x4b400000;
  rounded = rounded - rounder;
  Vector r = x - rounded * 0.693359375f + rounded * 2.12194440e-4f;
  Vector p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return p * (r * r) + r + 1.0f;
}
inline Vector power_of_two(Mask n) { return (Vector)((n + 127) << 23); }
inline Vector bounded(Vector x, float least, float most) {
  x = x < least ? all(least) : x;
  return x > most ? all(most) : x;
}
inline Vector exp(Vector x) {
  Mask n;
  Vector result = exp_of_rest(bounded(x, -104.0f, 89.0f), &n);
  return result * power_of_two(n >> 1) * power_of_two(n - (n >> 1));  // 2^128 alone is no float
}
inline Vector sigmoid(Vector x) {
  Mask n;
  Vector result = exp_of_rest(bounded(-x, -87.3f, 88.37f), &n);
  return reciprocal(1.0f + result * power_of_two(n));
}

// A ratio of polynomials, that of Eigen; beyond 7.9 the result is 1 to the last bit.
inline Vector tanh(Vector x) {
  x = bounded(x, -7.90531110763549805f, 7.90531110763549805f);
  Vector square = x * x;
  Vector p = all(-2.76076847742355e-16f);
  p = p * square + 2.00018790482477e-13f;
  p = p * square - 8.60467152213735e-11f;
  p = p * square + 5.12229709037114e-08f;
  p = p * square + 1.48572235717979e-05f;
  p = p * square + 6.37261928875436e-04f;
  p = p * square + 4.89352455891786e-03f;
  Vector q = all(1.19825839466702e-06f);
  q = q * square + 1.18534705686654e-04f;
  q = q * square + 2.26843463243900e-03f;
  q = q * square + 4.89352518554385e-03f;
  return x * p * reciprocal(q);
}

// The rarer ones lane by lane.
template <typename Function>
inline Vector each(Vector x, Function function) {
  for (int lane = 0; lane < LANES; lane++) x[lane] = function(x[lane]);
  return x;
}
inline Vector absolute(Vector x) { return (Vector)((Mask)x & 0x7fffffff); }
inline Vector square_root(Vector x) { return each(x, [](float a) { return __builtin_sqrtf(a); }); }
inline Vector logarithm(Vector x) { return each(x, [](float a) { return __builtin_logf(a); }); }
inline Vector log1p(Vector x) { return each(x, [](float a) { return __builtin_log1pf(a); }); }
inline Vector expm1(Vector x) { return each(x, [](float a) { return __builtin_expm1f(a); }); }
inline Vector erf(Vector x) { return each(x, [](float a) { return __builtin_erff(a); }); }
inline Vector erfc(Vector x) { return each(x, [](float a) { return __builtin_erfcf(a); }); }
inline Vector sine(Vector x) { return each(x, [](float a) { return __builtin_sinf(a); }); }
inline Vector cosine(Vector x) { return each(x, [](float a) { return __builtin_cosf(a); }); }
inline Vector power(Vector x, Vector y) {
  for (int lane = 0; lane < LANES; lane++) x[lane] = __builtin_powf(x[lane], y[lane]);
  return x;
}
inline Vector softplus(Vector x) { return maximum(x, Vector{}) + log1p(exp(-absolute(x))); }
