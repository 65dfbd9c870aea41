// An FFC, a Spectral Transform or a Fourier Unit in inference, image by image: what it computes of one image stays in
// the core's cache.
//
// Rows are transformed two at a time as they are made. A column is transformed for all channels, mixed and
// transformed back before the next one, so that neither spectrum is ever whole in memory. Rows are transformed back
// and added to h, which the last step mixes into the result; the convolutions of an FFC make that result right before.

#pragma once

#include <cmath>

#include "convolution.hpp"

namespace {

// A 1x1 convolution (columns, depth) and the batch norm after it, by its statistics.
struct NormedLayer {
  const float *weight = nullptr, *gamma = nullptr, *beta = nullptr, *mean = nullptr, *var = nullptr;
  float eps = 0;

  float scale(int64_t column) const { return gamma[column] / std::sqrt(var[column] + eps); }
  float shift(int64_t column) const { return beta[column] - mean[column] * scale(column); }
};

// y = conv2(h + fu(h) + lfu(h)) with h = relu(bn1(conv1(x))); without conv1 y = fu(x), of as many channels. In an FFC
// x are the global channels of the convolutions' input, pooled to the size of the result, and y is what they all make.
struct InferenceJob {
  Map<const float> x, residual;  // the residual may be missing; in a Spectral Transform it is added to y
  Map<float> y;
  int64_t N, H, W;        // of the result
  int64_t C_in, C, C_out;  // channels of x, h and y; C = 0 if nothing is transformed
  NormedLayer conv1, fu, lfu;  // without a weight if they are missing
  const float* conv2;
  const ConvolutionJob* convolutions;  // null: the Spectral Transform alone
  char* packed;       // memory of weights that stay packed from call to call, or null
  bool is_packed;     // whether they are there already
};

// What all threads share: the shapes, and the packed weights, whose order is that of the planes and which hold
// the norms' scales and those of the transforms.
template <int LANES>
struct InferenceState {
  const InferenceJob& job;
  const int64_t cut;  // channels of the map whose quadrants the Local Fourier Unit takes
  const Planes<LANES> whole, quadrants;
  const Convolutions convolutions;
  const bool pools;
  // Whether kernels read x and write y as they are, or copies of each image (or of some rows) with channels last.
  const bool x_is_direct, y_is_direct;
  // Whether the threads share out the panels of the convolutions' weight for all images at once, as they can where
  // nothing is transformed; and whether a panel is packed right before it is needed, one at a time.
  const bool shares_panels, packs_late;
  Packed conv1, fu, lfu, conv2, convolved;

  InferenceState(const InferenceJob& job, int threads, Arena& arena)
      : job(job),
        cut((job.C + 3) / 4),
        whole(job.C, job.C, job.H, job.W),
        quadrants(4 * cut, job.C, (job.H + 1) / 2, (job.W + 1) / 2),
        convolutions(job.convolutions, job.conv2, job.C, job.packed ? 1 : job.N),
        pools(job.convolutions && job.C && (job.convolutions->height.pools() || job.convolutions->width.pools())),
        x_is_direct(job.x.is_direct(job.convolutions ? job.convolutions->width.size : job.W)),
        y_is_direct(job.y.is_direct(job.W) && (!job.residual.values || job.residual.is_direct(job.W))),
        shares_panels(convolutions && !convolutions.by_winograd() && !job.C &&
                      !convolutions.maps_outweigh(job.N, threads)),
        packs_late(convolutions && !job.packed && convolutions.passes_once() &&
                   (shares_panels || (job.N < threads && !convolutions.maps_outweigh(1, threads)))),
        conv1(is_fourier_unit() ? 0 : job.C, job.C_in, arena),
        fu(mixed_width(), 2 * LANES * whole.blocks, arena),
        lfu(has_lfu() ? mixed_width() : 0, 2 * LANES * quadrants.blocks, arena),
        conv2(is_fourier_unit() || convolutions ? 0 : job.C_out, job.C, arena),
        convolved(convolutions.memory(packs_late ? 0 : convolutions.panels(), arena)) {}

  bool is_fourier_unit() const { return !job.conv1.weight; }  // or nothing
  bool has_lfu() const { return job.lfu.weight; }
  int64_t mixed_width() const { return 2 * LANES * Planes<LANES>::of(job.C); }
  int64_t x_pixels() const {
    return convolutions ? job.convolutions->height.size * job.convolutions->width.size : job.H * job.W;
  }
  int64_t x_channels() const { return convolutions ? convolutions.inputs() : job.C_in; }

  void pack(const Team& team) {
    const auto in_order = [](int64_t k) { return k; };
    team.each(conv1.panels(), [&](int64_t panel) {
      const auto normed = [&](int64_t c) {
        return PackedColumn{job.conv1.weight + c * job.C_in, job.conv1.scale(c), job.conv1.shift(c)};
      };
      conv1.pack(panel, job.C_in, normed, in_order);
    });
    pack_unit(team, fu, job.fu, whole);
    pack_unit(team, lfu, job.lfu, quadrants);
    team.each(conv2.panels(), [&](int64_t panel) {
      conv2.pack(panel, job.C, [&](int64_t c) { return PackedColumn{job.conv2 + c * job.C, 1, 0}; }, in_order);
    });
    if (!packs_late) team.deal(convolved.panels(), [&](int64_t panel) { convolutions.pack(panel, convolved); });
    team.wait();
  }

  void pack_unit(const Team& team, Packed& weight, const NormedLayer& layer, const Planes<LANES>& planes) {
    // Both ways take 1 / sqrt(H W), and the rows' spectra are twice too large. ReLU keeps positive factors.
    const float inverse = float(1 / std::sqrt(double(planes.H) * planes.W)), forward = inverse / 2;
    const auto column = [&](int64_t place) {
      const int64_t real = Planes<LANES>::real_at(place);
      if (real >= 2 * job.C) return PackedColumn{};
      const float* from = layer.weight + real * 2 * planes.C;
      return PackedColumn{from, layer.scale(real) * forward * inverse, layer.shift(real) * inverse};
    };
    team.each(weight.panels(), [&](int64_t panel) {
      if (2 * planes.C < weight.depth) weight.clear(panel);
      weight.pack(panel, 2 * planes.C, column, Planes<LANES>::place_of);
    });
  }
};

// The maps and planes of one image. `tiles` is what the Local Fourier Unit adds, (h, w, C) of a quadrant; `x` and `y`
// are copies of the convolutions' maps, for so many images.
template <int LANES>
struct ImageMemory {
  float *h, *tiles, *x, *y;
  Planes<LANES> whole, quadrants;

  ImageMemory(const InferenceState<LANES>& state, int64_t images, Arena& arena)
      : whole(state.whole), quadrants(state.quadrants) {
    const int64_t C = images ? state.job.C : 0, convolved = state.convolutions ? images : 0;
    const bool local = images && state.has_lfu();
    h = arena.take(state.is_fourier_unit() ? 0 : whole.H * whole.W * C);
    whole.values = arena.take(C ? whole.size() : 0);
    quadrants.values = arena.take(local ? quadrants.size() : 0);
    tiles = arena.take(local ? quadrants.H * quadrants.W * C : 0);
    x = arena.take(state.x_is_direct ? 0 : convolved * state.x_pixels() * state.x_channels());
    y = arena.take(state.y_is_direct ? 0 : convolved * whole.H * whole.W * state.job.C_out);
  }
};

// What one thread does for images, by itself or with its team, in memory of its own or of the team.
template <int LANES>
class ImageInference {
 public:
  using V = Vector<LANES>;
  using Memory = ImageMemory<LANES>;

  ImageInference(const InferenceState<LANES>& state, Arena& arena)
      : state(state),
        job(state.job),
        lines(std::max(job.H, job.W), arena),
        spectrum(arena.take(job.C ? std::max(state.whole.group_size(), state.quadrants.group_size()) : 0)),
        mixed(arena.take(job.C ? std::max(state.whole.group_size(), state.quadrants.group_size()) : 0)),
        quadrants(arena.take(state.has_lfu() ? 2 * state.quadrants.W * 4 * state.cut : 0)),
        rows(arena.take(state.pools || !state.convolutions ? 2 * job.W * std::max(job.C_in, job.C_out) : 0)),
        one_panel(state.convolutions.memory(state.packs_late ? 1 : 0, arena)),
        tile_block(state.convolutions.tile_block(arena)),
        run_lists(state.convolutions.run_lists(arena)) {}

  void run(int64_t n, const Memory& memory, const Team& team) const {
    const ImageMaps maps = read_image(n, memory, 0, team);
    if (job.C) transform(maps, memory, team);
    // This thread's rows of h, which it has just made.
    const int64_t pairs = (job.H + 1) / 2, row = 2 * team.first(pairs), end = std::min(2 * team.end(pairs), job.H);
    if (state.convolutions.by_winograd())
      convolve_tiles(maps, memory.h, team);
    else if (state.convolutions && !state.packs_late && state.convolutions.maps_outweigh(1, team.size))
      return convolve_rows(n, maps, memory, row, end, team);
    else if (state.convolutions)
      convolve_panels(1, &maps, memory.h, team);
    else if (!state.is_fourier_unit())
      mix_rows(maps, memory, row, end);
    team.wait();
    write_image(n, memory, 0, team);
  }

  // All images at once: a panel of the weight for all rows, so that each is read once.
  void run_all(const Memory& memory, const Team& team) const {
    team.each(job.N, [&](int64_t n) { read_image(n, memory, n, {0, 1}); });
    convolve_panels(job.N, nullptr, nullptr, team, &memory);
    team.wait();
    team.each(job.N, [&](int64_t n) { write_image(n, memory, n, {0, 1}); });
  }

 private:
  // The image's maps as the kernels use them, copies number `slot` where that is not as they are.
  ImageMaps maps_of(int64_t n, const Memory& memory, int64_t slot) const {
    ImageMaps maps{job.x.of_image(n), job.residual.of_image(n), job.y.of_image(n), false};
    if (!state.convolutions) return maps;
    maps.has_relu = job.convolutions->has_relu;
    const int64_t channels = state.x_channels(), W = job.convolutions->width.size;
    if (!state.x_is_direct) maps.x = channels_last(memory.x + slot * state.x_pixels() * channels, W, channels);
    if (state.y_is_direct) return maps;
    maps.y = channels_last(memory.y + slot * job.H * job.W * job.C_out, job.W, job.C_out);
    maps.residual.values = nullptr;  // added when y is written, before the ReLU
    maps.has_relu = false;
    return maps;
  }

  ImageMaps read_image(int64_t n, const Memory& memory, int64_t slot, const Team& team) const {
    if (!state.convolutions || state.x_is_direct) return maps_of(n, memory, slot);
    const int64_t H = job.convolutions->height.size, W = job.convolutions->width.size, channels = state.x_channels();
    const int64_t row = team.first(H), end = team.end(H);
    gather_rows(job.x.of_image(n), channels, row, end, W,
                memory.x + (slot * state.x_pixels() + row * W) * channels);
    team.wait();
    return maps_of(n, memory, slot);
  }

  void write_image(int64_t n, const Memory& memory, int64_t slot, const Team& team) const {
    if (!state.convolutions || state.y_is_direct) return;
    const int64_t row = team.first(job.H), end = team.end(job.H);
    scatter_rows(memory.y + (slot * job.H + row) * job.W * job.C_out, job.C_out, row, end, job.W,
                 job.residual.of_image(n), job.convolutions->has_relu, job.y.of_image(n));
    team.wait();
  }

  // Some images: a panel of the weight for all rows, so that each is read once; where panels are few, they are shared
  // out by rows, too.
  void convolve_panels(int64_t images, const ImageMaps* image, const float* h, const Team& team,
                       const Memory* all = nullptr) const {
    const int64_t panels = state.convolved.panels();
    const int64_t chunks = panels % team.size ? (4 * team.size + panels - 1) / panels : 1;
    const int64_t count = (job.H + chunks - 1) / chunks, blocks = (job.H + count - 1) / count;
    Packed weight = state.packs_late ? one_panel : state.convolved;
    team.wait();
    team.deal(blocks * panels, [&](int64_t block) {
      const int64_t row = block / panels * count, panel = block % panels, end = std::min(row + count, job.H);
      if (state.packs_late) state.convolutions.pack(panel, weight);
      for (int64_t n = 0; n < images; ++n)
        state.convolutions.rows(all ? maps_of(n, *all, n) : *image, h, row, end, weight, panel, panel + 1, run_lists);
    });
  }

  // By tiles: the threads share out their rows, or panels of the weight and, where there are more threads, rows.
  void convolve_tiles(const ImageMaps& maps, const float* h, const Team& team) const {
    const Convolutions& convolutions = state.convolutions;
    const int groups =
        convolutions.maps_outweigh(1, team.size) ? 1 : int(std::min<int64_t>(convolutions.panels(), team.size));
    const Team of_rows{team.rank / groups, team.size / groups}, of_panels{team.rank % groups, groups};
    Packed weight = state.packs_late ? one_panel : state.convolved;
    if (groups > 1) team.wait();  // for rows of h that others make
    if (of_rows.rank < of_rows.size)
      convolutions.tiles(maps, h, of_rows, of_panels, weight, state.packs_late, tile_block);
  }

  // h with the parts added; or of a Fourier Unit alone its result.
  void transform(const ImageMaps& maps, const Memory& memory, const Team& team) const {
    const bool local = state.has_lfu();
    const int64_t pairs = (job.H + 1) / 2, local_pairs = (memory.quadrants.H + 1) / 2;
    const int64_t group = group_for(memory.whole, team), groups = (memory.whole.Wf + group - 1) / group;
    team.each(pairs, [&](int64_t pair) { transform_rows(maps, memory, 2 * pair); });
    team.wait();
    team.each(groups, [&](int64_t task) { mix(memory.whole, state.fu, task * group, group); });
    if (local) team.each(local_pairs, [&](int64_t pair) { transform_quadrants(memory, 2 * pair); });
    team.wait();
    if (local) {
      const int64_t few = group_for(memory.quadrants, team);
      team.each((memory.quadrants.Wf + few - 1) / few,
                [&](int64_t task) { mix(memory.quadrants, state.lfu, task * few, few); });
      team.wait();
      team.each(local_pairs, [&](int64_t pair) { invert_quadrants(memory, 2 * pair); });
      team.wait();
    }
    team.each(pairs, [&](int64_t pair) {
      state.is_fourier_unit() ? invert_rows(maps, memory, 2 * pair) : add_rows(memory, 2 * pair);
    });
  }

  // So many at once that they stay in the cache while all panels of the weight pass.
  void convolve_rows(int64_t n, ImageMaps maps, const Memory& memory, int64_t row, int64_t end,
                     const Team& team) const {
    const int64_t count = (112 + job.W - 1) / job.W, width = job.W * job.C_out;
    for (int64_t first = row, next; first < end; first = next) {
      next = std::min(first + count, end);
      // A copy of y takes the same place for all of them, and is written out from the cache.
      float* const copy = memory.y + row * width;
      if (!state.y_is_direct) maps.y.values = copy - first * width;
      state.convolutions.rows(maps, memory.h, first, next, state.convolved, 0, state.convolved.panels(), run_lists);
      if (!state.y_is_direct)
        scatter_rows(copy, job.C_out, first, next, job.W, job.residual.of_image(n), job.convolutions->has_relu,
                     job.y.of_image(n));
    }
    team.wait();
  }

  static int64_t group_for(const Planes<LANES>& planes, const Team& team) {
    return std::min(planes.group(), (planes.Wf + team.size - 1) / team.size);
  }

  // h, and the spectra of its rows.
  void transform_rows(const ImageMaps& maps, const Memory& memory, int64_t row) const {
    const int64_t count = std::min<int64_t>(2, job.H - row), W = job.W, C = job.C;
    Map<const float> x = maps.x;
    const float* from;
    if (state.pools) {
      for (int64_t r = 0; r < count; ++r) state.convolutions.pool(x, row + r, rows + r * W * job.C_in);
      x = channels_last(rows, W, job.C_in);
      from = rows;
    } else if (state.convolutions || state.x_is_direct) {
      from = x.at(0, row, 0) + (state.convolutions ? job.convolutions->local_in : 0);
    } else {
      gather_rows(x, job.C_in, row, row + count, W, rows);
      x = channels_last(rows, W, job.C_in);
      from = rows;
    }
    if (state.is_fourier_unit())
      return lines.rfft_rows(memory.whole, row, from, count > 1 ? from + x.row : nullptr, x.pixel);
    float* h = memory.h + row * W * C;
    multiply_all(SHIFT | RELU, from, x.pixel, count * W, state.conv1, h, C);
    lines.rfft_rows(memory.whole, row, h, count > 1 ? h + W * C : nullptr, C);
  }

  // Quadrants of odd sides repeat the map's last row and column.
  void transform_quadrants(const Memory& memory, int64_t row) const {
    const Planes<LANES>& planes = memory.quadrants;
    const int64_t count = std::min<int64_t>(2, planes.H - row), cut = state.cut, width = 4 * cut;
    for (int64_t r = 0; r < count; ++r)
      for (int64_t w = 0; w < planes.W; ++w)
        for (int64_t part = 0; part < 4; ++part) {
          const int64_t h = std::min(part % 2 * planes.H + row + r, job.H - 1);
          const float* from = memory.h + (h * job.W + std::min(part / 2 * planes.W + w, job.W - 1)) * job.C;
          std::copy_n(from, cut, quadrants + (r * planes.W + w) * width + part * cut);
        }
    lines.rfft_rows(planes, row, quadrants, count > 1 ? quadrants + planes.W * width : nullptr, width);
  }

  void mix(const Planes<LANES>& planes, const Packed& weight, int64_t first, int64_t columns) const {
    const int64_t H = planes.H, width = planes.width, end = std::min(first + columns, planes.Wf);
    for (int64_t k = first; k < end; ++k)
      lines.template fft_column<false>(planes, planes.blocks, planes.at(k, 0), width,
                                       spectrum + (k - first) * H * width, width);
    multiply_all(SHIFT | RELU, spectrum, width, (end - first) * H, weight, mixed, width);
    for (int64_t k = first; k < end; ++k)
      lines.template fft_column<true>(planes, state.whole.blocks, mixed + (k - first) * H * width, width,
                                      planes.at(k, 0), width);
  }

  void invert_quadrants(const Memory& memory, int64_t row) const {
    float* to = memory.tiles + row * memory.quadrants.W * job.C;
    lines.irfft_rows(memory.quadrants, job.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t count, V value) {
      store<LANES>(value, to + (r * memory.quadrants.W + w) * job.C + channel, count);
    });
  }

  void invert_rows(const ImageMaps& maps, const Memory& memory, int64_t row) const {
    const Map<float> y = state.y_is_direct ? maps.y : channels_last(rows - row * job.W * job.C, job.W, job.C);
    lines.irfft_rows(memory.whole, job.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t count, V value) {
      float* to = y.values + (row + r) * y.row + w * y.pixel + channel;
      store<LANES>(value, to, count);
    });
    if (!state.y_is_direct)
      scatter_rows(rows, job.C, row, std::min(row + 2, job.H), job.W, {}, false, maps.y);
  }

  // To h the parts are added.
  void add_rows(const Memory& memory, int64_t row) const {
    const int64_t W = job.W, C = job.C;
    const Planes<LANES>& quarter = memory.quadrants;
    const bool local = state.has_lfu();
    float* h = memory.h + row * W * C;
    const int64_t width = quarter.W * C;
    const float* tiles[] = {memory.tiles + row % quarter.H * width, memory.tiles + (row + 1) % quarter.H * width};
    lines.irfft_rows(memory.whole, C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t count, V value) {
      float* sum = h + (r * W + w) * C + channel;
      value += load<LANES>(sum, count);
      const int64_t tile = w < quarter.W ? w : w - quarter.W;
      if (local) value += load<LANES>(tiles[r] + tile * C + channel, count);
      store<LANES>(value, sum, count);
    });
  }

  // Rows of a Spectral Transform's result, from `row` to before `end`.
  void mix_rows(const ImageMaps& maps, const Memory& memory, int64_t row, int64_t end) const {
    const float* h = memory.h + row * job.W * job.C;
    if (state.y_is_direct)
      return multiply_all(job.residual.values ? ADD : STORE, h, job.C, (end - row) * job.W, state.conv2,
                          maps.y.at(0, row, 0), maps.y.pixel);
    for (int64_t next; row < end; row = next, h += 2 * job.W * job.C) {
      next = std::min(row + 2, end);
      multiply_all(STORE, h, job.C, (next - row) * job.W, state.conv2, rows, job.C_out);
      scatter_rows(rows, job.C_out, row, next, job.W, maps.residual, false, maps.y);
    }
  }

  const InferenceState<LANES>& state;
  const InferenceJob& job;
  const Lines<LANES> lines;
  float *const spectrum, *const mixed, *const quadrants, *const rows;
  const Packed one_panel;
  const TileBlock tile_block;
  const Convolutions::RunLists run_lists;
};

// Roughly, and without the transforms.
inline int64_t multiply_adds(const InferenceJob& job) {
  int64_t pixel = job.C * (job.C_in + 12 * job.C + job.C_out);
  if (job.convolutions) {
    const ConvolutionJob& of = *job.convolutions;
    pixel += of.height.kernel * of.width.kernel * (of.local_in + of.global_in) * (of.local_out + of.global_out);
  }
  return job.N * job.H * job.W * pixel;
}

template <int LANES>
void run_images(const InferenceJob& job) {
  using Memory = ImageMemory<LANES>;
  const int threads = threads_for(multiply_adds(job));
  Arena weights{nullptr}, of_team{nullptr}, of_thread{nullptr};
  const InferenceState<LANES> counted(job, threads, weights);
  const int64_t in_team = counted.shares_panels ? job.N : 1, own = !counted.shares_panels && job.N >= threads;
  Memory(counted, in_team, of_team);
  ImageInference<LANES>(counted, of_thread), Memory(counted, own, of_thread);
  const int64_t packed = job.packed ? 0 : weights.used;
  const Workspace workspace(packed + of_team.used, of_thread.used, threads);
  Arena shared = workspace.shared();
  if (job.packed) weights = {job.packed};
  InferenceState<LANES> state(job, threads, job.packed ? weights : shared);
  const Memory team_memory(state, in_team, shared);
#pragma omp parallel num_threads(threads)
  {
    const Team all{omp_get_thread_num(), omp_get_num_threads()};
    if (!job.is_packed) state.pack(all);
    Arena arena = workspace.of_thread(all.rank);
    const ImageInference<LANES> images(state, arena);
    const Memory memory(state, own, arena);
    if (state.shares_panels)
      images.run_all(team_memory, all);
    else
      over_images(job.N, threads, all, memory, team_memory,
                  [&](int64_t n, const Memory& of, const Team& team) { images.run(n, of, team); });
  }
}

inline void run_inference(const InferenceJob& job) {
  if (job.convolutions)
    advise_huge_pages(job.y.values, job.N * job.C_out * job.H * job.W * int64_t(sizeof(float)));
  job.C > NARROW_LANES ? run_images<VECTOR_LANES>(job) : run_images<NARROW_LANES>(job);
}

template <int LANES>
void pack_images_weights(const InferenceJob& job) {
  Arena arena{job.packed};
  InferenceState<LANES>(job, 1, arena).pack({0, 1});
}

inline void pack_weights(const InferenceJob& job) {
  job.C > NARROW_LANES ? pack_images_weights<VECTOR_LANES>(job) : pack_images_weights<NARROW_LANES>(job);
}

inline int64_t packed_bytes(InferenceJob job) {
  Arena needed{nullptr};
  char some;
  job.packed = &some;  // so that room is made for all that stays packed
  if (job.C > NARROW_LANES)
    InferenceState<VECTOR_LANES>(job, 1, needed);
  else
    InferenceState<NARROW_LANES>(job, 1, needed);
  return needed.used;
}

}  // namespace
