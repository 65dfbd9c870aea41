// Two-dimensional real Fourier transforms of channels-last maps, orthonormal. A task is one image and one block of
// LANES channels: its plane stays in the core's cache from the load of the map to the store of the spectrum.

#pragma once

#include <cmath>

#include "planes.hpp"

namespace {

// What is to be done, as the caller fills it in.
template <typename T>
struct TransformJob {
  T *map, *spectrum;  // the forward transform reads the map; the spectrum is (N, H, Wf, C, 2), contiguous
  Layout map_layout;
  int64_t N, C, H, W;
  T inner;  // factor of the columns between kx = 0 and W / 2
};

// One thread's memory, and what it does for a block of at most LANES channels.
template <typename T, int LANES>
class BlockTransform {
 public:
  using V = typename Vector<T, LANES>::type;

  BlockTransform(const TransformJob<T>& job, Pieces& pieces)
      : job(job),
        planes(LANES, LANES, job.H, job.W),
        lines(std::max(job.H, job.W), pieces),
        column(pieces.take<T>(job.H * 2 * LANES)),
        scale(T(1 / std::sqrt(double(job.H) * job.W))) {
    planes.values = pieces.take<T>(planes.size());
  }

  void forward(int64_t n, int64_t channel) {
    const T* map = job.map + n * job.map_layout.image + channel;
    const int64_t row = job.map_layout.row;
    planes.C = std::min<int64_t>(LANES, job.C - channel);
    for (int64_t h = 0; h < job.H; h += 2)
      lines.open_rows(planes, h, map + h * row, h + 1 < job.H ? map + (h + 1) * row : nullptr, job.map_layout.pixel);
    for (int64_t k = 0; k < planes.Wf; ++k) {
      const T half = scale_of(k) / 2;  // the rows' spectra are twice too large
      lines.template column<false>(planes, 1, planes.at(k, 0), WIDTH, column, WIDTH);
      for (int64_t h = 0; h < job.H; ++h) {
        const V re = load<T, LANES>(column + h * WIDTH, LANES), im = load<T, LANES>(column + h * WIDTH + LANES, LANES);
        V low, high;
        interleave<LANES>(re * half, im * half, low, high, std::make_integer_sequence<int, LANES>{});
        T* to = spectrum_at(n, h, k, channel);
        store<T, LANES>(low, to, 2 * planes.C);
        if (2 * planes.C > LANES) store<T, LANES>(high, to + LANES, 2 * planes.C - LANES);
      }
    }
  }

  void inverse(int64_t n, int64_t channel) {
    T* map = job.map + n * job.map_layout.image + channel;
    planes.C = std::min<int64_t>(LANES, job.C - channel);
    for (int64_t k = 0; k < planes.Wf; ++k) {
      const T whole = scale_of(k);
      for (int64_t h = 0; h < job.H; ++h) {
        const T* from = spectrum_at(n, h, k, channel);
        const V low = load<T, LANES>(from, 2 * planes.C);
        const V high = 2 * planes.C > LANES ? load<T, LANES>(from + LANES, 2 * planes.C - LANES) : V{};
        V re, im;
        separate<LANES>(low, high, re, im, std::make_integer_sequence<int, LANES>{});
        store<T, LANES>(re * whole, column + h * WIDTH, LANES);
        store<T, LANES>(im * whole, column + h * WIDTH + LANES, LANES);
      }
      lines.template column<true>(planes, 1, column, WIDTH, planes.at(k, 0), WIDTH);
    }
    for (int64_t h = 0; h < job.H; h += 2)
      lines.close_rows(planes, planes.C, h, [&](int64_t r, int64_t w, int64_t, int64_t count, V value) {
        store<T, LANES>(value, map + (h + r) * job.map_layout.row + w * job.map_layout.pixel, count);
      });
  }

 private:
  static constexpr int64_t WIDTH = 2 * LANES;

  T scale_of(int64_t k) const { return k == 0 || 2 * k == job.W ? scale : scale * job.inner; }

  T* spectrum_at(int64_t n, int64_t h, int64_t k, int64_t channel) const {
    return job.spectrum + (((n * job.H + h) * planes.Wf + k) * job.C + channel) * 2;
  }

  const TransformJob<T>& job;
  Planes<T, LANES> planes;
  const Lines<T, LANES> lines;
  T* const column;
  const T scale;
};

template <typename T, int LANES>
void transform_blocks(const TransformJob<T>& job, bool forward) {
  static thread_local Scratch scratch;
  const int64_t blocks = (job.C + LANES - 1) / LANES, tasks = job.N * blocks;
#pragma omp parallel if (tasks > 1)
  {
    Pieces needed{nullptr};
    BlockTransform<T, LANES>(job, needed);
    Pieces pieces{scratch.of(needed.used)};
    BlockTransform<T, LANES> block(job, pieces);
#pragma omp for
    for (int64_t task = 0; task < tasks; ++task) {
      const int64_t n = task / blocks, channel = task % blocks * LANES;
      forward ? block.forward(n, channel) : block.inverse(n, channel);
    }
    scratch.shrink();
  }
}

template <typename T, int LANES>
void run_transform(const TransformJob<T>& job, bool forward) {
  job.C > LANES / 2 ? transform_blocks<T, LANES>(job, forward) : transform_blocks<T, LANES / 2>(job, forward);
}

}  // namespace
