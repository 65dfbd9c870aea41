// Complex Fourier transforms of lines, vectorised over channels: Stockham's, in radices 4, 2 and odd factors. The
// inverse is the forward one with the parts exchanged.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "vectors.hpp"

namespace {

constexpr int LARGEST_FACTOR = 31;  // of sizes that are fast; others are right, too

struct Stage {
  int radix, count, stride;       // butterflies of `radix` inputs; `count` twiddles, `stride` repetitions
  std::vector<float> twiddle;  // (count, radix - 1, 2)
  std::vector<float> cosine, sine;  // (radix, radix) of an odd radix
};

struct Plan {
  int length;
  std::vector<Stage> stages;

  explicit Plan(int n) : length(n) {
    const double turn = 2 * std::acos(-1.0);
    int rest = n, stride = 1;
    while (rest > 1) {
      Stage stage;
      stage.radix = next_radix(rest);
      stage.count = rest / stage.radix;
      stage.stride = stride;
      for (int p = 0; p < stage.count; ++p)
        for (int k = 1; k < stage.radix; ++k) {
          const double angle = -turn * p * k / rest;
          stage.twiddle.push_back(float(std::cos(angle)));
          stage.twiddle.push_back(float(std::sin(angle)));
        }
      // Of a large prime radix only one turn, which is read with j k modulo the radix.
      for (int j = stage.radix > LARGEST_FACTOR; j < (stage.radix > LARGEST_FACTOR ? 2 : stage.radix); ++j)
        for (int k = 0; k < stage.radix; ++k) {
          const double angle = turn * ((int64_t(j) * k) % stage.radix) / stage.radix;
          stage.cosine.push_back(float(std::cos(angle)));
          stage.sine.push_back(float(std::sin(angle)));
        }
      rest /= stage.radix;
      stride *= stage.radix;
      stages.push_back(std::move(stage));
    }
  }

  static int next_radix(int n) {
    if (n % 4 == 0) return 4;
    if (n % 2 == 0) return 2;
    for (int odd = 3; odd * odd <= n; odd += 2)
      if (n % odd == 0) return odd;
    return n;
  }

  static const Plan& of(int n) {
    static std::mutex mutex;
    static std::map<int, std::unique_ptr<Plan>> plans;
    std::lock_guard<std::mutex> lock(mutex);
    auto& plan = plans[n];
    if (!plan) plan = std::make_unique<Plan>(n);
    return *plan;
  }
};

// LANES channels of a line of complex numbers, its parts apart.
template <typename V>
struct Line {
  V* re;
  V* im;
};

template <typename V>
inline void times(V& re, V& im, const float* w) {
  const V real = re * w[0] - im * w[1];
  im = re * w[1] + im * w[0];
  re = real;
}

template <typename V>
void radix_2(const Stage& stage, Line<V> in, Line<V> out) {
  const int s = stage.stride, half = s * stage.count;
  for (int p = 0; p < stage.count; ++p) {
    const float* w = &stage.twiddle[2 * p];
    for (int q = 0; q < s; ++q) {
      const int i = q + s * p, o = q + 2 * s * p;
      V re = in.re[i] - in.re[i + half], im = in.im[i] - in.im[i + half];
      out.re[o] = in.re[i] + in.re[i + half];
      out.im[o] = in.im[i] + in.im[i + half];
      times(re, im, w);
      out.re[o + s] = re;
      out.im[o + s] = im;
    }
  }
}

template <typename V>
void radix_4(const Stage& stage, Line<V> in, Line<V> out) {
  const int s = stage.stride, quarter = s * stage.count;
  for (int p = 0; p < stage.count; ++p) {
    const float* w = &stage.twiddle[6 * p];
    for (int q = 0; q < s; ++q) {
      const int i = q + s * p, o = q + 4 * s * p;
      const V ar = in.re[i], ai = in.im[i], br = in.re[i + quarter], bi = in.im[i + quarter];
      const V cr = in.re[i + 2 * quarter], ci = in.im[i + 2 * quarter];
      const V dr = in.re[i + 3 * quarter], di = in.im[i + 3 * quarter];
      const V sum_r = ar + cr, sum_i = ai + ci, dif_r = ar - cr, dif_i = ai - ci;
      const V odd_r = br + dr, odd_i = bi + di, rot_r = bi - di, rot_i = dr - br;  // -i (b - d)
      V yr = dif_r + rot_r, yi = dif_i + rot_i;
      out.re[o] = sum_r + odd_r;
      out.im[o] = sum_i + odd_i;
      times(yr, yi, w);
      out.re[o + s] = yr;
      out.im[o + s] = yi;
      yr = sum_r - odd_r, yi = sum_i - odd_i;
      times(yr, yi, w + 2);
      out.re[o + 2 * s] = yr;
      out.im[o + 2 * s] = yi;
      yr = dif_r - rot_r, yi = dif_i - rot_i;
      times(yr, yi, w + 4);
      out.re[o + 3 * s] = yr;
      out.im[o + 3 * s] = yi;
    }
  }
}

// An odd radix by its definition, terms j and R - j taken together. R = 0: the stage's own radix.
template <int R, typename V>
void radix_odd(const Stage& stage, Line<V> in, Line<V> out) {
  constexpr int MOST = R ? R / 2 : LARGEST_FACTOR / 2;
  const int radix = R ? R : stage.radix, half = radix / 2, s = stage.stride, step = s * stage.count;
  const float *cosine = stage.cosine.data(), *sine = stage.sine.data();
  for (int p = 0; p < stage.count; ++p) {
    const float* w = stage.twiddle.data() + 2 * (radix - 1) * p;
    for (int q = 0; q < s; ++q) {
      const int i = q + s * p, o = q + radix * s * p;
      const V first_r = in.re[i], first_i = in.im[i];
      V plus_r[MOST], plus_i[MOST], minus_r[MOST], minus_i[MOST], all_r = first_r, all_i = first_i;
#pragma GCC unroll 4
      for (int j = 0; j < half; ++j) {
        const int a = i + (j + 1) * step, b = i + (radix - 1 - j) * step;
        plus_r[j] = in.re[a] + in.re[b], minus_r[j] = in.re[a] - in.re[b];
        plus_i[j] = in.im[a] + in.im[b], minus_i[j] = in.im[a] - in.im[b];
        all_r += plus_r[j], all_i += plus_i[j];
      }
      out.re[o] = all_r;
      out.im[o] = all_i;
#pragma GCC unroll 4
      for (int k = 1; k <= half; ++k) {
        V cos_r = first_r, cos_i = first_i, sin_r = V{} , sin_i = V{};
#pragma GCC unroll 4
        for (int j = 0; j < half; ++j) {
          const float c = cosine[(j + 1) * radix + k], d = sine[(j + 1) * radix + k];
          cos_r += plus_r[j] * c, cos_i += plus_i[j] * c;
          sin_r += minus_r[j] * d, sin_i += minus_i[j] * d;
        }
        V yr = cos_r + sin_i, yi = cos_i - sin_r;
        times(yr, yi, w + 2 * (k - 1));
        out.re[o + k * s] = yr;
        out.im[o + k * s] = yi;
        yr = cos_r - sin_i, yi = cos_i + sin_r;
        times(yr, yi, w + 2 * (radix - k - 1));
        out.re[o + (radix - k) * s] = yr;
        out.im[o + (radix - k) * s] = yi;
      }
    }
  }
}

// A large prime radix by its definition.
template <typename V>
void radix_prime(const Stage& stage, Line<V> in, Line<V> out) {
  const int radix = stage.radix, s = stage.stride, step = s * stage.count;
  for (int p = 0; p < stage.count; ++p)
    for (int q = 0; q < s; ++q)
      for (int k = 0; k < radix; ++k) {
        V re{}, im{};
        for (int j = 0; j < radix; ++j) {
          const int i = q + s * p + j * step;
          const int turn = int(int64_t(j) * k % radix);
          const float c = stage.cosine[turn], d = stage.sine[turn];
          re += in.re[i] * c + in.im[i] * d;
          im += in.im[i] * c - in.re[i] * d;
        }
        if (k) times(re, im, &stage.twiddle[2 * ((radix - 1) * p + k - 1)]);
        const int o = q + radix * s * p + k * s;
        out.re[o] = re;
        out.im[o] = im;
      }
}

// Transforms `line`; `other` is as long. Returns the one of the two that holds the result.
template <typename V>
Line<V> transform(const Plan& plan, Line<V> line, Line<V> other) {
  for (const auto& stage : plan.stages) {
    switch (stage.radix) {
      case 2: radix_2(stage, line, other); break;
      case 4: radix_4(stage, line, other); break;
      case 3: radix_odd<3>(stage, line, other); break;
      case 5: radix_odd<5>(stage, line, other); break;
      case 7: radix_odd<7>(stage, line, other); break;
      default:
        stage.radix <= LARGEST_FACTOR ? radix_odd<0>(stage, line, other) : radix_prime(stage, line, other);
    }
    std::swap(line, other);
  }
  return line;
}

template <typename V>
Line<V> swapped(Line<V> line) {
  return {line.im, line.re};
}

}  // namespace
