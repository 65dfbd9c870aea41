// Two-dimensional real Fourier transforms of channels-last maps, orthonormal, vectorised over channels.
//
// A task is one image and one block of LANES channels: its plane stays in the core's cache from the load of the
// map to the store of the spectrum. Two real rows are transformed as one complex row. Complex transforms are
// Stockham's, in radices 4, 2 and odd factors; the inverse is the forward one with the parts exchanged.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace {

constexpr int LARGEST_FACTOR = 31;

// Where a map of `height` x `width` pixels lies: channel c of pixel (h, w) of image n is at
// data[n * image + h * row + w * pixel + c].
struct Layout {
  int64_t image, row, pixel;
};

template <typename T>
struct Stage {
  int radix, count, stride;       // butterflies of `radix` inputs; `count` twiddles, `stride` repetitions
  std::vector<T> twiddle;         // (count, radix - 1, 2)
  std::vector<T> cosine, sine;    // (radix, radix) of an odd radix
};

template <typename T>
struct Plan {
  int length;
  std::vector<Stage<T>> stages;

  explicit Plan(int n) : length(n) {
    const double turn = 2 * std::acos(-1.0);
    int rest = n, stride = 1;
    while (rest > 1) {
      Stage<T> stage;
      stage.radix = next_radix(rest);
      stage.count = rest / stage.radix;
      stage.stride = stride;
      for (int p = 0; p < stage.count; ++p)
        for (int k = 1; k < stage.radix; ++k) {
          const double angle = -turn * p * k / rest;
          stage.twiddle.push_back(T(std::cos(angle)));
          stage.twiddle.push_back(T(std::sin(angle)));
        }
      for (int j = 0; j < stage.radix; ++j)
        for (int k = 0; k < stage.radix; ++k) {
          const double angle = turn * ((int64_t(j) * k) % stage.radix) / stage.radix;
          stage.cosine.push_back(T(std::cos(angle)));
          stage.sine.push_back(T(std::sin(angle)));
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

template <typename T, int LANES>
struct Vector {
  typedef T type __attribute__((vector_size(LANES * sizeof(T))));
};

// LANES channels of a line of complex numbers, its parts apart.
template <typename V>
struct Line {
  V* re;
  V* im;
};

template <typename T, typename V>
inline void times(V& re, V& im, const T* w) {
  const V real = re * w[0] - im * w[1];
  im = re * w[1] + im * w[0];
  re = real;
}

template <typename T, typename V>
void radix_2(const Stage<T>& stage, Line<V> in, Line<V> out) {
  const int s = stage.stride, half = s * stage.count;
  for (int p = 0; p < stage.count; ++p) {
    const T* w = &stage.twiddle[2 * p];
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

template <typename T, typename V>
void radix_4(const Stage<T>& stage, Line<V> in, Line<V> out) {
  const int s = stage.stride, quarter = s * stage.count;
  for (int p = 0; p < stage.count; ++p) {
    const T* w = &stage.twiddle[6 * p];
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
template <int R, typename T, typename V>
void radix_odd(const Stage<T>& stage, Line<V> in, Line<V> out) {
  constexpr int MOST = R ? R / 2 : LARGEST_FACTOR / 2;
  const int radix = R ? R : stage.radix, half = radix / 2, s = stage.stride, step = s * stage.count;
  const T *cosine = stage.cosine.data(), *sine = stage.sine.data();
  for (int p = 0; p < stage.count; ++p) {
    const T* w = stage.twiddle.data() + 2 * (radix - 1) * p;
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
          const T c = cosine[(j + 1) * radix + k], d = sine[(j + 1) * radix + k];
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

// Transforms `line`; `other` is as long. Returns the one of the two that holds the result.
template <typename T, typename V>
Line<V> transform(const Plan<T>& plan, Line<V> line, Line<V> other) {
  for (const auto& stage : plan.stages) {
    switch (stage.radix) {
      case 2: radix_2(stage, line, other); break;
      case 4: radix_4(stage, line, other); break;
      case 3: radix_odd<3>(stage, line, other); break;
      case 5: radix_odd<5>(stage, line, other); break;
      case 7: radix_odd<7>(stage, line, other); break;
      default: radix_odd<0>(stage, line, other);
    }
    std::swap(line, other);
  }
  return line;
}

template <typename V>
Line<V> swapped(Line<V> line) {
  return {line.im, line.re};
}

// What is to be done, as the caller fills it in. A spectrum is (N, H, Wf, parts * C, 2), contiguous.
template <typename T>
struct Job {
  T* map;               // read by the forward transform, written by the inverse
  const T* residual;       // inverse: added to the map, and may be it; null: nothing
  T* spectrum;          // written by the forward transform, read by the inverse
  const T* gate;        // forward: spectrum values whose gate is at most 0 become 0; null: all stay
  const T *scale, *shift;  // of each real channel, applied to what relu or gate look at; null: 1 and 0
  Layout map_layout, residual_layout;
  int64_t N, C, H, W;   // C channels a part, of H x W pixels
  int64_t parts;        // 4: the map is 2H x 2W, its quadrants are the parts: top left, bottom left, then the right
  int64_t tiles;        // 4: the plane lies on the map 2 x 2 times; the forward transform takes the sum
  int64_t map_H, map_W; // the whole map: tiles may be cut
  int64_t relu;         // inverse: of the spectrum, before it is transformed
  T inner;              // factor of the columns between kx = 0 and W / 2
};

// One thread's memory, and what it does for a block of `count` channels, at most LANES.
template <typename T, int LANES>
struct Worker {
  using V = typename Vector<T, LANES>::type;
  const Job<T>& job;
  const Plan<T>&rows, &columns;
  const int H, W, Wf;
  std::vector<char> memory;
  Line<V> plane, line, other;

  explicit Worker(const Job<T>& job)
      : job(job), rows(Plan<T>::of(job.W)), columns(Plan<T>::of(job.H)), H(job.H), W(job.W), Wf(job.W / 2 + 1) {
    const int64_t longest = std::max(H, W), size = int64_t(H) * Wf;
    memory.resize((2 * size + 4 * longest + 1) * sizeof(V));
    const uintptr_t start = reinterpret_cast<uintptr_t>(memory.data());
    V* next = reinterpret_cast<V*>((start + sizeof(V) - 1) / sizeof(V) * sizeof(V));
    plane = {next, next + size};
    line = {next + 2 * size, next + 2 * size + longest};
    other = {line.im + longest, line.im + 2 * longest};
  }

  static V load(const T* from, int64_t count) {
    V value{};
    if (count >= LANES)
      std::memcpy(&value, from, sizeof(V));
    else
      for (int64_t c = 0; c < count; ++c) value[c] = from[c];
    return value;
  }

  static void store(V value, T* to, int64_t count) {
    if (count >= LANES)
      std::memcpy(to, &value, sizeof(V));
    else
      for (int64_t c = 0; c < count; ++c) to[c] = value[c];
  }

  // The map

  int64_t part_offset(const Layout& at, int64_t part) const {
    return part % 2 * H * at.row + part / 2 * W * at.pixel;
  }

  V load_pixel(const T* map, int h, int w, int count) const {
    const Layout& at = job.map_layout;
    map += h * at.row + w * at.pixel;
    V value = load(map, count);
    if (job.tiles == 1) return value;
    const bool below = h + H < job.map_H, right = w + W < job.map_W;
    if (below) value += load(map + H * at.row, count);
    if (right) value += load(map + W * at.pixel, count);
    if (below && right) value += load(map + H * at.row + W * at.pixel, count);
    return value;
  }

  void store_pixel(V value, T* map, const T* residual, int h, int w, int count) const {
    if (residual) value += load(residual + h * job.residual_layout.row + w * job.residual_layout.pixel, count);
    store(value, map + h * job.map_layout.row + w * job.map_layout.pixel, count);
  }

  void store_tiles(V value, T* map, const T* residual, int h, int w, int count) const {
    store_pixel(value, map, residual, h, w, count);
    if (job.tiles == 1) return;
    const bool below = h + H < job.map_H, right = w + W < job.map_W;
    if (below) store_pixel(value, map, residual, h + H, w, count);
    if (right) store_pixel(value, map, residual, h, w + W, count);
    if (below && right) store_pixel(value, map, residual, h + H, w + W, count);
  }

  // The spectrum: a block's real channels, 2 * count of them, fill two vectors

  V normed(V value, int64_t channel, int64_t count) const {
    return job.scale ? value * load(job.scale + channel, count) + load(job.shift + channel, count) : value;
  }

  V load_spectrum(int64_t at, int64_t channel, int64_t count) const {
    V value = load(job.spectrum + at, count);
    if (!job.relu) return value;
    value = normed(value, channel, count);
    return value < V{} ? V{} : value;  // which keeps NaN, as ReLU does
  }

  void store_spectrum(V value, int64_t at, int64_t channel, int64_t count) const {
    if (job.gate) value = normed(load(job.gate + at, count), channel, count) <= V{} ? V{} : value;
    store(value, job.spectrum + at, count);
  }

  template <int... I>
  static void interleave(V re, V im, V& low, V& high, std::integer_sequence<int, I...>) {
    low = __builtin_shufflevector(re, im, (I / 2 + I % 2 * LANES)...);
    high = __builtin_shufflevector(re, im, (LANES / 2 + I / 2 + I % 2 * LANES)...);
  }

  template <int... I>
  static void separate(V low, V high, V& re, V& im, std::integer_sequence<int, I...>) {
    re = __builtin_shufflevector(low, high, (2 * I)...);
    im = __builtin_shufflevector(low, high, (2 * I + 1)...);
  }

  void store_complex(V re, V im, int64_t at, int64_t channel, int count) const {
    V low, high;
    interleave(re, im, low, high, std::make_integer_sequence<int, LANES>{});
    store_spectrum(low, at, channel, 2 * count);
    if (2 * count > LANES) store_spectrum(high, at + LANES, channel + LANES, 2 * count - LANES);
  }

  void load_complex(V& re, V& im, int64_t at, int64_t channel, int count) const {
    const V low = load_spectrum(at, channel, 2 * count);
    const V high = 2 * count > LANES ? load_spectrum(at + LANES, channel + LANES, 2 * count - LANES) : V{};
    separate(low, high, re, im, std::make_integer_sequence<int, LANES>{});
  }

  // The transforms

  void forward(int64_t n, int64_t part, int64_t first, int count) {
    const T* map = job.map + n * job.map_layout.image + part_offset(job.map_layout, part) + first;
    const int64_t pixel = 2 * job.parts * job.C, channel = 2 * (part * job.C + first);
    for (int h = 0; h < H; h += 2) {
      const bool pair = h + 1 < H;
      for (int w = 0; w < W; ++w) {
        line.re[w] = load_pixel(map, h, w, count);
        line.im[w] = pair ? load_pixel(map, h + 1, w, count) : V{};
      }
      const Line<V> z = transform(rows, line, other);
      for (int k = 0; k < Wf; ++k) {  // twice the spectra of the two rows
        const int mirror = k ? W - k : 0, at = k * H + h;
        plane.re[at] = z.re[k] + z.re[mirror];
        plane.im[at] = z.im[k] - z.im[mirror];
        if (!pair) continue;
        plane.re[at + 1] = z.im[k] + z.im[mirror];
        plane.im[at + 1] = z.re[mirror] - z.re[k];
      }
    }
    const T norm = T(0.5 / std::sqrt(double(H) * W));
    for (int k = 0; k < Wf; ++k) {
      const T factor = k && 2 * k != W ? norm * job.inner : norm;
      const Line<V> z = transform(columns, Line<V>{plane.re + k * H, plane.im + k * H}, other);
      for (int64_t h = 0; h < H; ++h)
        store_complex(z.re[h] * factor, z.im[h] * factor, ((n * H + h) * Wf + k) * pixel + channel, channel, count);
    }
  }

  void inverse(int64_t n, int64_t part, int64_t first, int count) {
    const int64_t pixel = 2 * job.parts * job.C, channel = 2 * (part * job.C + first);
    T* map = job.map + n * job.map_layout.image + part_offset(job.map_layout, part) + first;
    const Layout& at = job.residual_layout;
    const T* residual = job.residual ? job.residual + n * at.image + part_offset(at, part) + first : nullptr;
    for (int k = 0; k < Wf; ++k) {
      for (int64_t h = 0; h < H; ++h)
        load_complex(line.re[h], line.im[h], ((n * H + h) * Wf + k) * pixel + channel, channel, count);
      const Line<V> z = swapped(transform(columns, swapped(line), swapped(other)));
      for (int h = 0; h < H; ++h) plane.re[h * Wf + k] = z.re[h], plane.im[h * Wf + k] = z.im[h];
    }
    const T norm = T(1 / std::sqrt(double(H) * W)), inner = norm * job.inner;
    for (int h = 0; h < H; h += 2) {
      const bool pair = h + 1 < H;
      const V *ar = plane.re + h * Wf, *ai = plane.im + h * Wf, *br = ar + Wf, *bi = ai + Wf;
      for (int k = 0; k < Wf; ++k) {
        const V second_r = pair ? br[k] : V{}, second_i = pair ? bi[k] : V{};
        if (k == 0 || 2 * k == W) {  // a real signal's are real
          line.re[k] = ar[k] * norm;
          line.im[k] = second_r * norm;
          continue;
        }
        line.re[k] = (ar[k] - second_i) * inner;
        line.im[k] = (ai[k] + second_r) * inner;
        line.re[W - k] = (ar[k] + second_i) * inner;
        line.im[W - k] = (second_r - ai[k]) * inner;
      }
      const Line<V> z = swapped(transform(rows, swapped(line), swapped(other)));
      for (int w = 0; w < W; ++w) {
        store_tiles(z.re[w], map, residual, h, w, count);
        if (pair) store_tiles(z.im[w], map, residual, h + 1, w, count);
      }
    }
  }
};

template <typename T, int LANES>
void run_blocks(const Job<T>& job, bool forward) {
  const int64_t blocks = (job.C + LANES - 1) / LANES, tasks = job.N * job.parts * blocks;
#pragma omp parallel if (tasks > 1)
  {
    Worker<T, LANES> worker(job);
#pragma omp for
    for (int64_t task = 0; task < tasks; ++task) {
      const int64_t first = task % blocks * LANES, part = task / blocks % job.parts, n = task / blocks / job.parts;
      const int count = int(std::min<int64_t>(LANES, job.C - first));
      forward ? worker.forward(n, part, first, count) : worker.inverse(n, part, first, count);
    }
  }
}

template <typename T, int LANES>
void run(const Job<T>& job, bool forward) {
  job.C > LANES / 2 ? run_blocks<T, LANES>(job, forward) : run_blocks<T, LANES / 2>(job, forward);
}

}  // namespace

extern "C" {
int ffconv_largest_factor() { return LARGEST_FACTOR; }
void ffconv_transform_float(const Job<float>* job, int forward) { run<float, 16>(*job, forward); }
void ffconv_transform_double(const Job<double>* job, int forward) { run<double, 8>(*job, forward); }
}
