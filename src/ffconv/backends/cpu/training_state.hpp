// What all threads share of a Spectral Transform in training, and the planes of one image.

#pragma once

#include "norms.hpp"
#include "weight_gradient_gemm.hpp"

namespace {

// y = conv2(h + fu(h) + lfu(h)) with h = relu(bn1(conv1(x))); without conv1
// y = fu(x), of as many channels.
struct TrainingJob {
  Map<const float> x;
  Map<float> y;               // in the backward pass the gradient, which is only read
  int64_t N, H, W;
  int64_t C_in, C, C_out;     // channels of x, h and y
  bool adds;                  // to what y holds
  TrainedLayer conv1, fu, lfu;  // without a weight if they are missing
  const float* conv2;
  float* grad_conv2;
  Map<float> grad_x;
};

// Where channels of a map lie, and which one lies at a place.
struct InOrder {
  static int64_t place_of(int64_t channel) { return channel; }
  static int64_t channel_at(int64_t place) { return place; }
};

// The same of the planes' real and imaginary parts.
template <int LANES>
struct InPlanes {
  static int64_t place_of(int64_t channel) { return Planes<LANES>::place_of(channel); }
  static int64_t channel_at(int64_t place) { return Planes<LANES>::real_at(place); }
};

// What all threads share: shapes, weights in the order of the planes with the transforms' scales, and norms.
template <int LANES>
struct TrainingState {
  using P = Planes<LANES>;
  using Spectral = InPlanes<LANES>;
  const TrainingJob& job;
  const int64_t cut;  // channels of the map whose quadrants the Local Fourier Unit takes
  const P whole, quadrants;
  const int64_t channels, mixed;  // of h and of a mixed spectrum, filled up to whole blocks
  Norm<LANES> conv1_norm, fu_norm, lfu_norm;
  Packed conv1, fu, lfu, conv2;

  TrainingState(const TrainingJob& job, bool backward, Arena& arena)
      : job(job),
        cut((job.C + 3) / 4),
        whole(job.C, job.C, job.H, job.W),
        quadrants(4 * cut, job.C, (job.H + 1) / 2, (job.W + 1) / 2),
        channels(LANES * P::of(job.C)),
        mixed(2 * channels),
        conv1_norm(channels, float(1), arena),
        fu_norm(mixed, scale(whole), arena),
        lfu_norm(mixed, scale(quadrants), arena),
        conv1(packed(backward, !is_fourier_unit(), channels, job.C_in, arena)),
        fu(packed(backward, true, mixed, 2 * LANES * whole.blocks, arena)),
        lfu(packed(backward, has_lfu(), mixed, 2 * LANES * quadrants.blocks, arena)),
        conv2(packed(backward, !is_fourier_unit(), job.C_out, channels, arena)) {}

  bool is_fourier_unit() const { return !job.conv1.weight; }
  bool has_lfu() const { return job.lfu.weight; }
  int64_t pixels() const { return job.H * job.W; }
  // Values of one image in what a norm reads.
  int64_t fu_image() const { return whole.Wf * whole.H * mixed; }
  int64_t lfu_image() const { return quadrants.Wf * quadrants.H * mixed; }

  // Of a transform, there or back; the rows' spectra that a weight mixes are twice too large.
  static float scale(const P& planes) { return float(1 / std::sqrt(double(planes.H) * planes.W)); }

  // The gradient's product has the weight's columns for its depth.
  static Packed packed(bool backward, bool needed, int64_t columns, int64_t depth, Arena& arena) {
    if (!needed) columns = depth = 0;
    if (backward) std::swap(columns, depth);
    return Packed(columns, depth, arena);
  }

  // The weights, and what is known of the norms.
  void pack(const Team& team, bool backward) {
    pack<InOrder>(team, backward, conv1, job.conv1.weight, job.C, job.C_in, float(1));
    pack<Spectral>(team, backward, fu, job.fu.weight, 2 * job.C, 2 * whole.C, scale(whole) / 2);
    pack<Spectral>(team, backward, lfu, job.lfu.weight, 2 * job.C, 2 * quadrants.C, scale(quadrants) / 2);
    pack<InOrder>(team, backward, conv2, job.conv2, job.C_out, job.C, float(1));
    if (backward && team.rank == 0) set_conv1(), set_units();
    team.wait();
  }

  // A weight of so many channels out and in, or nothing.
  template <typename Order>
  static void pack(const Team& team, bool backward, Packed& to, const float* weight, int64_t out, int64_t in, float scale) {
    const auto column = [&](int64_t place) {
      const int64_t channel = Order::channel_at(place);
      return channel < out ? PackedColumn{weight + channel * in, scale, 0} : PackedColumn{};
    };
    team.each(to.panels(), [&](int64_t panel) {
      if ((backward ? out : in) < to.depth) to.clear(panel);
      backward ? pack_back<Order>(to, panel, weight, out, in, scale) : to.pack(panel, in, column, Order::place_of);
    });
  }

  // One panel of the product with a gradient: the weight's rows are the panel's.
  template <typename Order>
  static void pack_back(Packed& to, int64_t panel, const float* weight, int64_t out, int64_t in, float scale) {
    constexpr int WIDTH = Packed::WIDTH;
    float* values = to.panel(panel);
    int64_t from[WIDTH];
    for (int j = 0; j < WIDTH; ++j) from[j] = Order::channel_at(panel * WIDTH + j);
    for (int64_t row = 0; row < out; ++row, weight += in) {
      float* line = values + Order::place_of(row) * WIDTH;
      for (int j = 0; j < WIDTH; ++j) line[j] = from[j] < in ? weight[from[j]] * scale : float(0);
    }
  }

  // The norms from the layers' statistics.
  void set_conv1() const {
    if (!is_fourier_unit()) conv1_norm.template set<InOrder>(job.conv1, job.C);
  }
  void set_units() const {
    fu_norm.template set<Spectral>(job.fu, 2 * job.C);
    if (has_lfu()) lfu_norm.template set<Spectral>(job.lfu, 2 * job.C);
  }
};

// The planes of one image, and what the Local Fourier Unit adds, (h, w, channels) of a quadrant.
template <int LANES>
struct TrainingMemory {
  Planes<LANES> whole, quadrants;
  float* tiles;

  TrainingMemory(const TrainingState<LANES>& state, int64_t images, Arena& arena)
      : whole(state.whole), quadrants(state.quadrants) {
    const bool local = images && state.has_lfu();
    whole.values = arena.take(images * whole.size());
    quadrants.values = arena.take(local ? quadrants.size() : 0);
    tiles = arena.take(local ? quadrants.H * quadrants.W * state.channels : 0);
  }
};

}  // namespace
