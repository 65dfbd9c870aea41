// A Spectral Transform in inference, image by image: what it computes of one image stays in the core's cache.
//
// Rows are transformed two at a time as they are made. A column is transformed for all channels, mixed and
// transformed back before the next one, so that neither spectrum is ever whole in memory. Rows are transformed back
// and added to h, which the last step mixes into the result; the convolutions of an FFC make that result right before.

#pragma once

#include <cmath>

#include "convolution.hpp"

namespace {

// A 1x1 convolution (columns, depth) and the batch norm after it, by its statistics.
template <typename T>
struct NormedLayer {
  const T *weight, *gamma, *beta, *mean, *var;
  T eps;

  T scale(int64_t column) const { return gamma[column] / std::sqrt(var[column] + eps); }
  T shift(int64_t column) const { return beta[column] - mean[column] * scale(column); }
};

// y = conv2(h + fu(h) + lfu(h)) with h = relu(bn1(conv1(x))), as the caller fills it in; without first.weight
// y = fu(x), of as many channels.
template <typename T>
struct SpectralTransformJob {
  const T* x;
  T* y;
  Layout x_layout, y_layout;  // of maps whose rows follow each other: row = W * pixel
  int64_t N, H, W;
  int64_t C_in, C, C_out;     // channels of x, h and y
  int64_t add;                // to what y holds
  NormedLayer<T> first, unit, local;  // local.weight null: no Local Fourier Unit
  const T* last;
  const ConvolutionJob<T>* around;  // null: the Spectral Transform alone
  char* packed;       // memory that keeps the packed weights for the next call of the same sizes, or null
  int64_t is_packed;  // whether they are there already
  const ConvolutionMaps<T>* maps;  // of the convolutions
};

// What all threads share: the shapes, and the packed weights, whose order is that of the planes and which hold
// the norms' scales and those of the transforms.
template <typename T, int LANES>
struct Network {
  const SpectralTransformJob<T>& job;
  const int64_t cut;  // channels of the map whose quadrants the Local Fourier Unit takes
  const Planes<T, LANES> whole, quadrants;
  const Convolutions<T> around;
  // Whether the threads share out the panels of the convolutions' weight for all images at once, as they can where
  // nothing is transformed; and whether a panel is packed right before it is needed, one at a time.
  const bool shares_panels, packs_late;
  Packed<T> first, unit, local, last, convolved;

  Network(const SpectralTransformJob<T>& job, Pieces& pieces)
      : job(job),
        cut((job.C + 3) / 4),
        whole(job.C, job.C, job.H, job.W),
        quadrants(4 * cut, job.C, (job.H + 1) / 2, (job.W + 1) / 2),
        around(job.around, job.maps, job.last, job.C, job.packed ? 1 : job.N),
        shares_panels(around && !around.by_tiles() && !job.C && !around.maps_outweigh(job.N, omp_get_max_threads())),
        packs_late(around && !job.packed && around.passes_once() &&
                   (shares_panels ||
                    (job.N < omp_get_max_threads() && !around.maps_outweigh(1, omp_get_max_threads())))),
        first(alone() ? 0 : job.C, job.C_in, pieces),
        unit(mixed_width(), 2 * LANES * whole.blocks, pieces),
        local(has_local() ? mixed_width() : 0, 2 * LANES * quadrants.blocks, pieces),
        last(alone() || around ? 0 : job.C_out, job.C, pieces),
        convolved(around.memory(packs_late ? 0 : around.panels(), pieces)) {}

  bool alone() const { return !job.first.weight; }  // the Fourier Unit, or nothing
  bool has_local() const { return job.local.weight; }
  int64_t mixed_width() const { return 2 * LANES * Planes<T, LANES>::of(job.C); }

  void pack(const Team& team) {
    const auto in_order = [](int64_t k) { return k; };
    team.each(first.panels(), [&](int64_t panel) {
      const auto normed = [&](int64_t c) {
        return PackedColumn<T>{job.first.weight + c * job.C_in, job.first.scale(c), job.first.shift(c)};
      };
      first.pack(panel, job.C_in, normed, in_order);
    });
    pack_unit(team, unit, job.unit, whole);
    pack_unit(team, local, job.local, quadrants);
    team.each(last.panels(), [&](int64_t panel) {
      last.pack(panel, job.C, [&](int64_t c) { return PackedColumn<T>{job.last + c * job.C, 1, 0}; }, in_order);
    });
    if (!packs_late) team.deal(convolved.panels(), [&](int64_t panel) { around.pack(panel, convolved); });
    team.wait();
  }

  void pack_unit(const Team& team, Packed<T>& weight, const NormedLayer<T>& layer, const Planes<T, LANES>& planes) {
    // Both ways take 1 / sqrt(H W), and the rows' spectra are twice too large. ReLU keeps positive factors.
    const T back = T(1 / std::sqrt(double(planes.H) * planes.W)), there = back / 2;
    const auto column = [&](int64_t place) {
      const int64_t real = Planes<T, LANES>::real_at(place);
      if (real >= 2 * job.C) return PackedColumn<T>{};
      const T* weight = layer.weight + real * 2 * planes.C;
      return PackedColumn<T>{weight, layer.scale(real) * there * back, layer.shift(real) * back};
    };
    team.each(weight.panels(), [&](int64_t panel) {
      if (2 * planes.C < weight.depth) weight.clear(panel);
      weight.pack(panel, 2 * planes.C, column, Planes<T, LANES>::place_of);
    });
  }
};

// The maps and planes of one image. `tiles` is what the Local Fourier Unit adds, (h, w, C) of a quadrant.
template <typename T, int LANES>
struct Maps {
  T *h, *tiles;
  Planes<T, LANES> whole, quadrants;

  Maps(const Network<T, LANES>& network, Pieces& pieces) : whole(network.whole), quadrants(network.quadrants) {
    const int64_t C = network.job.C;
    const bool local = network.has_local();
    h = pieces.take<T>(network.alone() ? 0 : whole.H * whole.W * C);
    whole.values = pieces.take<T>(whole.size());
    quadrants.values = pieces.take<T>(local ? quadrants.size() : 0);
    tiles = pieces.take<T>(local ? quadrants.H * quadrants.W * C : 0);
  }
};

// What one thread does for images, by itself or with its team, in maps of its own or of the team.
template <typename T, int LANES>
class ImageTransform {
 public:
  using V = typename Vector<T, LANES>::type;

  ImageTransform(const Network<T, LANES>& network, Pieces& pieces)
      : network(network),
        job(network.job),
        lines(std::max(job.H, job.W), pieces),
        opened(pieces.take<T>(std::max(network.whole.group_size(), network.quadrants.group_size()))),
        mixed(pieces.take<T>(std::max(network.whole.group_size(), network.quadrants.group_size()))),
        quadrants(pieces.take<T>(network.has_local() ? 2 * network.quadrants.W * 4 * network.cut : 0)),
        pooled(pieces.take<T>(network.around.pools() ? 2 * network.around.pooled_row() : 0)),
        one_panel(network.around.memory(network.packs_late ? 1 : 0, pieces)),
        tile_block(network.around.tile_block(pieces)) {}

  void run(int64_t n, const Maps<T, LANES>& maps, const Team& team) const {
    if (job.C) transform(n, maps, team);
    // This thread's rows of h, which it has just made.
    const int64_t pairs = (job.H + 1) / 2, row = 2 * team.first(pairs), end = std::min(2 * team.end(pairs), job.H);
    if (network.around.by_tiles())
      convolve_tiles(n, maps.h, team);
    else if (network.around && !network.packs_late && network.around.maps_outweigh(1, team.size))
      convolve_rows(n, maps.h, row, end);
    else if (network.around)
      convolve_panels(n, n + 1, maps.h, team);
    else if (!network.alone())
      leave(n, maps, row, end);
    team.wait();
  }

  // Images from `first` to before `last`: a panel of the weight for all rows, so that each is read once; where panels
  // are few, they are shared out by rows, too.
  void convolve_panels(int64_t first, int64_t last, const T* h, const Team& team) const {
    const int64_t panels = network.convolved.panels();
    const int64_t chunks = panels % team.size ? (4 * team.size + panels - 1) / panels : 1;
    const int64_t count = (job.H + chunks - 1) / chunks, blocks = (job.H + count - 1) / count;
    Packed<T> weight = network.packs_late ? one_panel : network.convolved;
    team.wait();
    team.deal(blocks * panels, [&](int64_t block) {
      const int64_t row = block / panels * count, panel = block % panels;
      if (network.packs_late) network.around.pack(panel, weight);
      for (int64_t n = first; n < last; ++n)
        network.around.rows(n, h, row, std::min(row + count, job.H), weight, panel, panel + 1);
    });
  }

  // By tiles: the threads share out their rows, or panels of the weight and, where there are more threads, rows.
  void convolve_tiles(int64_t n, const T* h, const Team& team) const {
    const Convolutions<T>& around = network.around;
    const int groups = around.maps_outweigh(1, team.size) ? 1 : int(std::min<int64_t>(around.panels(), team.size));
    const Team of_rows{team.rank / groups, team.size / groups}, of_panels{team.rank % groups, groups};
    Packed<T> weight = network.packs_late ? one_panel : network.convolved;
    if (groups > 1) team.wait();  // for rows of h that others make
    if (of_rows.rank < of_rows.size) around.tiles(n, h, of_rows, of_panels, weight, network.packs_late, tile_block);
  }

 private:
  // h with the parts added; or of a Fourier Unit alone its result.
  void transform(int64_t n, const Maps<T, LANES>& maps, const Team& team) const {
    const bool local = network.has_local();
    const int64_t pairs = (job.H + 1) / 2, local_pairs = (maps.quadrants.H + 1) / 2;
    const int64_t group = group_for(maps.whole, team), groups = (maps.whole.Wf + group - 1) / group;
    team.each(pairs, [&](int64_t pair) { enter(n, maps, 2 * pair); });
    team.wait();
    team.each(groups, [&](int64_t task) { mix(maps.whole, network.unit, task * group, group); });
    if (local) team.each(local_pairs, [&](int64_t pair) { open_quadrants(maps, 2 * pair); });
    team.wait();
    if (local) {
      const int64_t few = group_for(maps.quadrants, team);
      team.each((maps.quadrants.Wf + few - 1) / few,
                [&](int64_t task) { mix(maps.quadrants, network.local, task * few, few); });
      team.wait();
      team.each(local_pairs, [&](int64_t pair) { close_quadrants(maps, 2 * pair); });
      team.wait();
    }
    team.each(pairs, [&](int64_t pair) { network.alone() ? close(n, maps, 2 * pair) : close_and_add(maps, 2 * pair); });
  }

  // So many at once that they stay in the cache while all panels of the weight pass.
  void convolve_rows(int64_t n, const T* h, int64_t row, int64_t end) const {
    const int64_t count = (112 + job.W - 1) / job.W;
    for (int64_t first = row; first < end; first += count)
      network.around.rows(n, h, first, std::min(first + count, end), network.convolved, 0, network.convolved.panels());
  }

  static int64_t group_for(const Planes<T, LANES>& planes, const Team& team) {
    return std::min(planes.group(), (planes.Wf + team.size - 1) / team.size);
  }

  // h, and the spectra of its rows.
  void enter(int64_t n, const Maps<T, LANES>& maps, int64_t row) const {
    const int64_t rows = std::min<int64_t>(2, job.H - row), W = job.W, C = job.C;
    const Layout& at = job.x_layout;
    const T* x = job.x + n * at.image + row * at.row;
    if (network.alone()) return lines.open_rows(maps.whole, row, x, rows > 1 ? x + at.row : nullptr, at.pixel);
    T* h = maps.h + row * W * C;
    const bool pools = network.around.pools();
    for (int64_t r = 0; pools && r < rows; ++r) network.around.pool(n, row + r, pooled + r * W * job.C_in);
    multiply_all(SHIFT | RELU, pools ? pooled : x, pools ? job.C_in : at.pixel, rows * W, network.first, h, C);
    lines.open_rows(maps.whole, row, h, rows > 1 ? h + W * C : nullptr, C);
  }

  // Quadrants of odd sides repeat the map's last row and column.
  void open_quadrants(const Maps<T, LANES>& maps, int64_t row) const {
    const Planes<T, LANES>& planes = maps.quadrants;
    const int64_t rows = std::min<int64_t>(2, planes.H - row), cut = network.cut, width = 4 * cut;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t w = 0; w < planes.W; ++w)
        for (int64_t part = 0; part < 4; ++part) {
          const int64_t h = std::min(part % 2 * planes.H + row + r, job.H - 1);
          const T* from = maps.h + (h * job.W + std::min(part / 2 * planes.W + w, job.W - 1)) * job.C;
          std::copy_n(from, cut, quadrants + (r * planes.W + w) * width + part * cut);
        }
    lines.open_rows(planes, row, quadrants, rows > 1 ? quadrants + planes.W * width : nullptr, width);
  }

  void mix(const Planes<T, LANES>& planes, const Packed<T>& weight, int64_t first, int64_t columns) const {
    const int64_t H = planes.H, width = planes.width, end = std::min(first + columns, planes.Wf);
    for (int64_t k = first; k < end; ++k)
      lines.template column<false>(planes, planes.blocks, planes.at(k, 0), width, opened + (k - first) * H * width,
                                   width);
    multiply_all(SHIFT | RELU, opened, width, (end - first) * H, weight, mixed, width);
    for (int64_t k = first; k < end; ++k)
      lines.template column<true>(planes, network.whole.blocks, mixed + (k - first) * H * width, width,
                                  planes.at(k, 0), width);
  }

  void close_quadrants(const Maps<T, LANES>& maps, int64_t row) const {
    T* to = maps.tiles + row * maps.quadrants.W * job.C;
    lines.close_rows(maps.quadrants, job.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t count, V value) {
      store<T, LANES>(value, to + (r * maps.quadrants.W + w) * job.C + channel, count);
    });
  }

  void close(int64_t n, const Maps<T, LANES>& maps, int64_t row) const {
    const Layout& at = job.y_layout;
    T* y = job.y + n * at.image + row * at.row;
    lines.close_rows(maps.whole, job.C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t count, V value) {
      store<T, LANES>(value, y + r * at.row + w * at.pixel + channel, count);
    });
  }

  // To h the parts are added.
  void close_and_add(const Maps<T, LANES>& maps, int64_t row) const {
    const int64_t W = job.W, C = job.C;
    const Planes<T, LANES>& quarter = maps.quadrants;
    const bool local = network.has_local();
    T* h = maps.h + row * W * C;
    const int64_t width = quarter.W * C;
    const T* tiles[] = {maps.tiles + row % quarter.H * width, maps.tiles + (row + 1) % quarter.H * width};
    lines.close_rows(maps.whole, C, row, [&](int64_t r, int64_t w, int64_t channel, int64_t count, V value) {
      T* sum = h + (r * W + w) * C + channel;
      value += load<T, LANES>(sum, count);
      const int64_t tile = w < quarter.W ? w : w - quarter.W;
      if (local) value += load<T, LANES>(tiles[r] + tile * C + channel, count);
      store<T, LANES>(value, sum, count);
    });
  }

  // Rows of the result, from `row` to before `end`.
  void leave(int64_t n, const Maps<T, LANES>& maps, int64_t row, int64_t end) const {
    const Layout& at = job.y_layout;
    multiply_all(job.add ? ADD : STORE, maps.h + row * job.W * job.C, job.C, (end - row) * job.W, network.last,
                 job.y + n * at.image + row * at.row, at.pixel);
  }

  const Network<T, LANES>& network;
  const SpectralTransformJob<T>& job;
  const Lines<T, LANES> lines;
  T *const opened, *const mixed, *const quadrants, *const pooled;
  const Packed<T> one_panel;
  const TileBlock<T> tile_block;
};

template <typename T, int LANES>
void run_images(const SpectralTransformJob<T>& job) {
  static thread_local Scratch of_team, of_thread;
  Pieces weights{nullptr}, maps_needed{nullptr};
  Maps<T, LANES>(Network<T, LANES>(job, weights), maps_needed);
  const int64_t scratch = job.packed ? 0 : weights.used;
  char* const shared = of_team.of(scratch + maps_needed.used);
  weights = {job.packed ? job.packed : shared};
  Network<T, LANES> network(job, weights);
  Pieces of_maps{shared + scratch};
  const Maps<T, LANES> team_maps(network, of_maps);
#pragma omp parallel
  {
    const Team all{omp_get_thread_num(), omp_get_num_threads()};
    if (!job.is_packed) network.pack(all);
    Pieces needed{nullptr};
    ImageTransform<T, LANES>(network, needed), Maps<T, LANES>(network, needed);
    Pieces own{of_thread.of(needed.used)};
    const ImageTransform<T, LANES> images(network, own);
    const Maps<T, LANES> maps(network, own);
    if (network.shares_panels)
      images.convolve_panels(0, job.N, nullptr, all);
    else
      over_images(job.N, all, maps, team_maps,
                  [&](int64_t n, const Maps<T, LANES>& of, const Team& team) { images.run(n, of, team); });
    of_thread.shrink();
  }
  of_team.shrink();
}

template <typename T, int LANES>
void run_spectral_transform(const SpectralTransformJob<T>& job) {
  job.C > LANES / 2 ? run_images<T, LANES>(job) : run_images<T, LANES / 2>(job);
}

// A whole FFC: y is what it makes of x, on top of `onto`.
template <typename T, int LANES>
void run_convolution(SpectralTransformJob<T> job, const ConvolutionMaps<T>& maps) {
  job.N = maps.N;
  const bool pooled = maps.pooled.values;
  job.x = pooled ? maps.pooled.values : maps.x.values + job.around->local_in;
  job.x_layout = pooled ? maps.pooled.layout : maps.x.layout;
  job.maps = &maps;
  take_large_pages(maps.y.values, job.N * maps.y.layout.image * int64_t(sizeof(T)));
  run_spectral_transform<T, LANES>(job);
}

template <typename T, int LANES>
int64_t packed_bytes(SpectralTransformJob<T> job) {
  Pieces needed{nullptr};
  char some;
  job.packed = &some;  // so that room is made for all that stays packed
  if (job.C > LANES / 2)
    Network<T, LANES>(job, needed);
  else
    Network<T, LANES / 2>(job, needed);
  return needed.used;
}

}  // namespace
