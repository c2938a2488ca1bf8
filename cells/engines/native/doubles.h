// Functions of doubles, to the last bits.

#pragma once

inline Vector reciprocal(Vector x) { return 1.0 / x; }

// e^x = 2^n e^r with r in [-ln 2 / 2, ln 2 / 2]: e^r as in Cephes' exp.
inline Vector power_of_two(Mask n) { return (Vector)((n + 1023) << 52); }
inline Vector exp(Vector x) {
  const double rounder = 6755399441055744.0;  // 1.5 * 2^52: adding it leaves an integer in the last bits
  x = bounded(x, -746.0, 710.0);
  Vector nearest = x * 1.4426950408889634 + rounder;
  const Mask n = (Mask)nearest - 0x4338000000000000;
  nearest = nearest - rounder;
  const Vector r = x - nearest * 6.93145751953125e-1 - nearest * 1.42860682030941723212e-6, square = r * r;
  Vector p = all(1.26177193074810590878e-4);
  p = p * square + 3.02994407707441961300e-2;
  p = (p * square + 9.99999999999999999910e-1) * r;
  Vector q = all(3.00198505138664455042e-6);
  q = q * square + 2.52448340349684104192e-3;
  q = q * square + 2.27265548208155028766e-1;
  q = q * square + 2.00000000000000000009;
  const Vector result = 1.0 + 2.0 * (p / (q - p));
  return result * power_of_two(n >> 1) * power_of_two(n - (n >> 1));  // 2^1024 alone is no double
}
inline Vector sigmoid(Vector x) { return 1.0 / (1.0 + exp(-x)); }

// As in Cephes' tanh: a ratio of polynomials for small numbers, 1 - 2 / (e^2x + 1) for others. In TensorFlow it is 1
// from 17.7 on.
inline Vector tanh(Vector x) {
  const Vector square = x * x, size = absolute(x);
  Vector p = all(-9.64399179425052238628e-1);
  p = p * square - 9.92877231001918586564e1;
  p = p * square - 1.61468768441708447952e3;
  Vector q = square + 1.12811678491632931402e2;
  q = q * square + 2.23548839060100448583e3;
  q = q * square + 4.84406305325125486048e3;
  const Vector small = x + x * square * (p / q);
  const Vector large = size >= 17.714196154005174 ? all(1.0) : 1.0 - 2.0 / (exp(size + size) + 1.0);
  return size < 0.625 ? small : (Vector)((Mask)large | ((Mask)x & SIGN));
}

// Lane by lane, as the rarer ones.
inline Vector logarithm(Vector x) {
  x = normalised(x);
  for (int lane = 0; lane < LANES; lane++) x[lane] = __builtin_log(x[lane]);
  return x;
}
inline Vector log1p(Vector x) {
  x = normalised(x);
  for (int lane = 0; lane < LANES; lane++) x[lane] = __builtin_log1p(x[lane]);
  return x;
}

constexpr double SOFTPLUS_BOUND = 34.0436533891171558;
