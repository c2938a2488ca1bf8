// Functions of floats.

#pragma once

// 1 / x to the last bits, for x in [1, 2^127], and a / x: an estimate and a step of Newton's method, several times
// faster than a division.
#if defined(__AVX512F__)
inline Vector estimate_of_reciprocal(Vector x) {
  return (Vector)__builtin_ia32_rcp14ps512_mask(x, Vector{}, (unsigned short)-1);
}
inline Vector reciprocal(Vector x) {
  Vector estimate = estimate_of_reciprocal(x);
  return estimate * (2.0f - x * estimate);
}
inline Vector quotient(Vector a, Vector x) {
  Vector estimate = estimate_of_reciprocal(x), result = a * estimate;
  return (a - result * x) * estimate + result;
}
#else
inline Vector reciprocal(Vector x) { return 1.0f / x; }
inline Vector quotient(Vector a, Vector x) { return a / x; }
#endif

// e^x = 2^n e^r with r in [-ln 2 / 2, ln 2 / 2]: e^r as in Cephes' expf, and n.
inline Vector exp_of_rest(Vector x, Mask* n) {
  const float rounder = 12582912.0f;  // 1.5 * 2^23: adding it leaves an integer in the last bits
  Vector nearest = x * 1.44269504f + rounder;
  *n = (Mask)nearest - 0x4b400000;
  nearest = nearest - rounder;
  Vector r = x - nearest * 0.693359375f + nearest * 2.12194440e-4f;
  Vector p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return p * (r * r) + r + 1.0f;
}
inline Vector power_of_two(Mask n) { return (Vector)((n + 127) << 23); }
inline Vector exp(Vector x) {
  Mask n;
  Vector result = exp_of_rest(bounded(x, -104.0f, 89.0f), &n);
  return result * power_of_two(n >> 1) * power_of_two(n - (n >> 1));  // 2^128 alone is no float
}
// It is 1 from 16.6355324 on, as TensorFlow's: e^-x is lost beside 1.
inline Vector sigmoid(Vector x) {
  Mask n;
  Vector result = exp_of_rest(bounded(-x, -87.3f, 88.37f), &n);
  return reciprocal(1.0f + result * power_of_two(n));
}

// The ratio of polynomials of Eigen's ptanh_float, which in TensorFlow rounds to 1 from 7.90738964 on.
inline Vector tanh(Vector x) {
  Vector square = x * x;
  Vector p = all(1.394553628e-8f);
  p = p * square + 2.102733560e-5f;
  p = p * square + 3.520756727e-3f;
  p = p * square + 1.340216100e-1f;
  Vector q = all(8.015776984e-7f);
  q = q * square + 3.326951409e-4f;
  q = q * square + 2.597254514e-2f;
  q = q * square + 4.673548340e-1f;
  q = q * square + 1.0f;
  Vector result = absolute(x) >= 7.90738964f ? all(1.0f) : quotient(square * x * p + x, q);
  return (Vector)((Mask)result | ((Mask)x & INT32_MIN));  // of a zero too
}

// log x = log m + n log 2 with m in [sqrt(1/2), sqrt(2)): log m as in Cephes' logf.
inline Vector logarithm(Vector x) {
  const Mask bits = (Mask)x;
  Vector m = (Vector)((bits & 0x007fffff) | 0x3f000000);
  const Mask is_low = m < 0.707106781f;
  const Vector n = __builtin_convertvector((bits >> 23) - 126 + is_low, Vector);
  m = (is_low ? m + m : m) - 1.0f;
  Vector p = all(7.0376836292e-2f);
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const Vector square = m * m;
  const Vector result = m - (0.5f * square - (p * m * square - n * 2.12194440e-4f)) + n * 0.693359375f;
  const Vector infinite = all(__builtin_inff());
  return x > 0.0f ? (x == infinite ? x : result) : x == 0.0f ? -infinite : all(__builtin_nanf(""));
}
// What 1 + x loses of x, its quotient with what is left of x gives back.
inline Vector log1p(Vector x) {
  const Vector more = 1.0f + x, left = more - 1.0f;
  const Vector result = logarithm(more) * (x / left);
  return left == 0.0f || more == __builtin_inff() ? normalised(x) : result;
}

constexpr float SOFTPLUS_BOUND = 13.9423847f;
