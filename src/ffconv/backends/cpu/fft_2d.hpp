// Planes of one image, their rows and columns, and the threads that work on them.

#pragma once

#include <omp.h>

#include "fft_1d.hpp"
#include "maps.hpp"

namespace {

// The threads that work on one image: one alone, or all together, who wait for each other after each step.
struct Team {
  int rank, size;

  // This thread's part of so many tasks, from `first` to before `end`.
  int64_t first(int64_t tasks) const { return tasks * rank / size; }
  int64_t end(int64_t tasks) const { return tasks * (rank + 1) / size; }

  // A thread takes neighbours, and the same ones each time: what it made itself is in its cache.
  template <typename Work>
  void each(int64_t tasks, Work work) const {
    for (int64_t task = first(tasks); task < end(tasks); ++task) work(task);
  }

  // In turn, where the last tasks are smaller than the first ones.
  template <typename Work>
  void deal(int64_t tasks, Work work) const {
    for (int64_t task = rank; task < tasks; task += size) work(task);
  }

  void wait() const {
    if (size > 1) {
#pragma omp barrier
    }
  }
};

// Half spectra of all rows or of the whole plane, by columns: C real channels become blocks of LANES real and
// LANES imaginary parts.
template <int LANES>
struct Planes {
  int64_t C, H, W, Wf, blocks, width;  // values a pixel
  const Plan*rows, *columns;
  float* values = nullptr;

  // `mixed` channels may take the place of C.
  Planes(int64_t C, int64_t mixed, int64_t H, int64_t W)
      : C(C),
        H(H),
        W(W),
        Wf(W / 2 + 1),
        blocks(of(C)),
        width(spaced(2 * LANES * std::max(of(C), of(mixed)))),
        rows(&Plan::of(int(W))),
        columns(&Plan::of(int(H))) {}

  static int64_t of(int64_t channels) { return (channels + LANES - 1) / LANES; }
  // How far apart pixels of so many values lie: multiples of 2 KiB would crowd in a few lines of the cache.
  static int64_t spaced(int64_t values) { return values + (values * int64_t(sizeof(float)) % 2048 ? 0 : LANES); }
  // Where a real channel of the interleaved order lies, and which one lies there.
  static int64_t place_of(int64_t real) { return real / 2 / LANES * 2 * LANES + real % 2 * LANES + real / 2 % LANES; }
  static int64_t real_at(int64_t place) {
    return 2 * (place / (2 * LANES) * LANES + place % LANES) + place / LANES % 2;
  }

  int64_t size() const { return Wf * H * width; }

  // Columns are mixed in so many groups that a product has rows enough for what it reads of the weight. The most
  // columns of one, and their values.
  int64_t groups() const {
    const int64_t rows = 48 * std::clamp<int64_t>(width / 128, 1, 4);
    return std::clamp<int64_t>(Wf * H / rows, 1, Wf);
  }
  int64_t group() const { return (Wf + groups() - 1) / groups(); }
  int64_t group_size() const { return group() * H * width; }
  float* at(int64_t k, int64_t h) const { return values + (k * H + h) * width; }
};

// One thread's lines, and the transforms of rows and columns through them.
template <int LANES>
class Lines {
 public:
  using V = Vector<LANES>;

  Lines(int64_t longest, Arena& arena) {
    V* memory = arena.take<V>(4 * longest);
    line = {memory, memory + longest};
    other = {memory + 2 * longest, memory + 3 * longest};
  }

  // Rows h and h + 1 of the map, of pixels that are `pixel` values apart; without a second one it is null.
  void rfft_rows(const Planes<LANES>& planes, int64_t h, const float* first, const float* second, int64_t pixel) const {
    for (int64_t block = 0; block < planes.blocks; ++block) {
      const int64_t channel = block * LANES, count = planes.C - channel, W = planes.W;
      for (int64_t w = 0; w < W; ++w) {
        line.re[w] = load<LANES>(first + w * pixel + channel, count);
        line.im[w] = second ? load<LANES>(second + w * pixel + channel, count) : V{};
      }
      const Line<V> z = transform(*planes.rows, line, other);
      for (int64_t k = 0; k < planes.Wf; ++k) {  // twice the spectra of the two rows
        const int64_t mirror = k ? W - k : 0;
        float* to = planes.at(k, h) + 2 * channel;
        put(to, z.re[k] + z.re[mirror], z.im[k] - z.im[mirror]);
        if (second) put(to + planes.width, z.im[k] + z.im[mirror], z.re[mirror] - z.re[k]);
      }
    }
  }

  // The same rows back, unscaled. `result(row, w, channel, count, value)` takes each vector.
  template <typename Result>
  void irfft_rows(const Planes<LANES>& planes, int64_t C, int64_t h, Result result) const {
    const bool pair = h + 1 < planes.H;
    for (int64_t block = 0; block < Planes<LANES>::of(C); ++block) {
      const int64_t channel = block * LANES, count = C - channel, W = planes.W;
      for (int64_t k = 0; k < planes.Wf; ++k) {
        const float* from = planes.at(k, h) + 2 * channel;
        const V a_re = get(from), a_im = get(from + LANES);
        const V b_re = pair ? get(from + planes.width) : V{}, b_im = pair ? get(from + planes.width + LANES) : V{};
        const bool own = k == 0 || 2 * k == W;  // a real signal's are real
        line.re[k] = own ? a_re : a_re - b_im;
        line.im[k] = own ? b_re : a_im + b_re;
        if (own) continue;
        line.re[W - k] = a_re + b_im;
        line.im[W - k] = b_re - a_im;
      }
      const Line<V> z = swapped(transform(*planes.rows, swapped(line), swapped(other)));
      for (int64_t w = 0; w < W; ++w) {
        result(0, w, channel, count, z.re[w]);
        if (pair) result(1, w, channel, count, z.im[w]);
      }
    }
  }

  // So many blocks of a column, whose rows are so far apart, between the planes and a matrix.
  template <bool INVERSE>
  void fft_column(const Planes<LANES>& planes, int64_t blocks, const float* from, int64_t from_row, float* to,
              int64_t to_row) const {
    const Plan& plan = *planes.columns;
    for (int64_t block = 0; block < blocks; ++block, from += 2 * LANES, to += 2 * LANES) {
      for (int64_t h = 0; h < planes.H; ++h) {
        line.re[h] = get(from + h * from_row);
        line.im[h] = get(from + h * from_row + LANES);
      }
      const Line<V> z = INVERSE ? swapped(transform(plan, swapped(line), swapped(other))) : transform(plan, line, other);
      for (int64_t h = 0; h < planes.H; ++h) put(to + h * to_row, z.re[h], z.im[h]);
    }
  }

 private:
  static V get(const float* from) { return load<LANES>(from, LANES); }

  static void put(float* to, V re, V im) {
    store<LANES>(re, to, LANES);
    store<LANES>(im, to + LANES, LANES);
  }

  Line<V> line, other;
};

inline int most_threads() { return omp_in_parallel() ? 1 : omp_get_max_threads(); }

// Threads for so many multiply-adds: for few of them the barriers take longer than the work.
inline int threads_for(int64_t multiply_adds) { return multiply_adds < (int64_t(1) << 20) ? 1 : most_threads(); }

// Images are shared out among the threads, each of whom works alone, in maps of its own; all work together on
// those that are left, such as a single one, in the maps of the team. So they do on all if there are fewer threads than
// the memory was made for.
template <typename Maps, typename Work>
void over_images(int64_t N, int threads, const Team& all, const Maps& own, const Maps& of_team, Work work) {
  const int64_t shared_out = all.size == threads ? N / threads * threads : 0;
  for (int64_t n = all.rank; n < shared_out; n += all.size) work(n, own, Team{0, 1});
  for (int64_t n = shared_out; n < N; ++n) work(n, of_team, all);
}

}  // namespace
