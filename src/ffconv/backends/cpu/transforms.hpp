// Two-dimensional real Fourier transforms of channels-last maps, orthonormal. A task is one image and one block of
// LANES channels: its plane stays in the core's cache from the load of the map to the store of the spectrum.

#pragma once

#include <cmath>

#include "fft_2d.hpp"

namespace {

struct TransformJob {
  Map<float> map;  // only read by the forward transform; any strides
  float* spectrum;  // (N, H, Wf, C, 2), contiguous
  int64_t N, C, H, W;
  float inner;  // factor of the columns between kx = 0 and W / 2
};

// One thread's memory, and what it does for a block of at most LANES channels.
template <int LANES>
class BlockTransform {
 public:
  using V = Vector<LANES>;

  BlockTransform(const TransformJob& job, Arena& arena)
      : job(job),
        planes(LANES, LANES, job.H, job.W),
        lines(std::max(job.H, job.W), arena),
        column(arena.take(job.H * 2 * LANES)),
        rows(arena.take(job.map.channel == 1 ? 0 : 2 * job.W * LANES)),
        scale(float(1 / std::sqrt(double(job.H) * job.W))) {
    planes.values = arena.take(planes.size());
  }

  void forward(int64_t n, int64_t channel) {
    const Map<const float> map = job.map.of_image(n).from_channel(channel);
    planes.C = std::min<int64_t>(LANES, job.C - channel);
    for (int64_t h = 0; h < job.H; h += 2) {
      const bool pair = h + 1 < job.H;
      if (map.channel == 1) {
        lines.rfft_rows(planes, h, map.at(0, h, 0), pair ? map.at(0, h + 1, 0) : nullptr, map.pixel);
      } else {
        gather_rows(map, planes.C, h, std::min(h + 2, job.H), job.W, rows);
        lines.rfft_rows(planes, h, rows, pair ? rows + job.W * planes.C : nullptr, planes.C);
      }
    }
    for (int64_t k = 0; k < planes.Wf; ++k) {
      const float half = scale_of(k) / 2;  // the rows' spectra are twice too large
      lines.template fft_column<false>(planes, 1, planes.at(k, 0), WIDTH, column, WIDTH);
      for (int64_t h = 0; h < job.H; ++h) {
        const V re = load<LANES>(column + h * WIDTH, LANES), im = load<LANES>(column + h * WIDTH + LANES, LANES);
        V low, high;
        interleave<LANES>(re * half, im * half, low, high, std::make_integer_sequence<int, LANES>{});
        float* to = spectrum_at(n, h, k, channel);
        store<LANES>(low, to, 2 * planes.C);
        if (2 * planes.C > LANES) store<LANES>(high, to + LANES, 2 * planes.C - LANES);
      }
    }
  }

  void inverse(int64_t n, int64_t channel) {
    const Map<float> map = job.map.of_image(n).from_channel(channel);
    planes.C = std::min<int64_t>(LANES, job.C - channel);
    for (int64_t k = 0; k < planes.Wf; ++k) {
      const float whole = scale_of(k);
      for (int64_t h = 0; h < job.H; ++h) {
        const float* from = spectrum_at(n, h, k, channel);
        const V low = load<LANES>(from, 2 * planes.C);
        const V high = 2 * planes.C > LANES ? load<LANES>(from + LANES, 2 * planes.C - LANES) : V{};
        V re, im;
        deinterleave<LANES>(low, high, re, im, std::make_integer_sequence<int, LANES>{});
        store<LANES>(re * whole, column + h * WIDTH, LANES);
        store<LANES>(im * whole, column + h * WIDTH + LANES, LANES);
      }
      lines.template fft_column<true>(planes, 1, column, WIDTH, planes.at(k, 0), WIDTH);
    }
    for (int64_t h = 0; h < job.H; h += 2)
      lines.irfft_rows(planes, planes.C, h, [&](int64_t r, int64_t w, int64_t, int64_t count, V value) {
        store<LANES>(value, map.at(0, h + r, w), count);
      });
  }

 private:
  static constexpr int64_t WIDTH = 2 * LANES;

  float scale_of(int64_t k) const { return k == 0 || 2 * k == job.W ? scale : scale * job.inner; }

  float* spectrum_at(int64_t n, int64_t h, int64_t k, int64_t channel) const {
    return job.spectrum + (((n * job.H + h) * planes.Wf + k) * job.C + channel) * 2;
  }

  const TransformJob& job;
  Planes<LANES> planes;
  const Lines<LANES> lines;
  float *const column, *const rows;
  const float scale;
};

template <int LANES>
void transform_blocks(const TransformJob& job, bool forward) {
  const int64_t blocks = (job.C + LANES - 1) / LANES, tasks = job.N * blocks;
  const int threads = int(std::min<int64_t>(most_threads(), tasks));
  Arena needed{nullptr};
  BlockTransform<LANES>(job, needed);
  const Workspace workspace(0, needed.used, threads);
#pragma omp parallel num_threads(threads)
  {
    Arena arena = workspace.of_thread(omp_get_thread_num());
    BlockTransform<LANES> block(job, arena);
#pragma omp for
    for (int64_t task = 0; task < tasks; ++task) {
      const int64_t n = task / blocks, channel = task % blocks * LANES;
      forward ? block.forward(n, channel) : block.inverse(n, channel);
    }
  }
}

inline void run_transform(const TransformJob& job, bool forward) {
  job.C > NARROW_LANES ? transform_blocks<VECTOR_LANES>(job, forward) : transform_blocks<NARROW_LANES>(job, forward);
}

}  // namespace
