// What all threads share of a Spectral Transform in training, and the planes of one image.

#pragma once

#include "norms.hpp"
#include "outer.hpp"

namespace {

// y = conv2(h + fu(h) + lfu(h)) with h = relu(bn1(conv1(x))), as the caller fills it in; without first.weight
// y = fu(x), of as many channels.
template <typename T>
struct TrainingJob {
  const T* x;
  T* y;                       // in the backward pass the gradient that is read
  Layout x_layout, y_layout;  // of maps whose rows follow each other: row = W * pixel
  int64_t N, H, W;
  int64_t C_in, C, C_out;     // channels of x, h and y
  int64_t add;                // to what y holds
  TrainedLayer<T> first, unit, local;  // local.weight null: no Local Fourier Unit
  const T* last;
  T *grad_last, *grad_x;      // of conv2's weight, and of x (N, H, W, C_in)
};

// Where channels of a map lie, and which one lies at a place.
struct InOrder {
  static int64_t place_of(int64_t channel) { return channel; }
  static int64_t channel_at(int64_t place) { return place; }
};

// The same of the planes' real and imaginary parts.
template <typename T, int LANES>
struct InPlanes {
  static int64_t place_of(int64_t channel) { return Planes<T, LANES>::place_of(channel); }
  static int64_t channel_at(int64_t place) { return Planes<T, LANES>::real_at(place); }
};

// What all threads share: shapes, weights in the order of the planes with the transforms' scales, and norms.
template <typename T, int LANES>
struct TrainedNetwork {
  using P = Planes<T, LANES>;
  using Spectral = InPlanes<T, LANES>;
  const TrainingJob<T>& job;
  const int64_t cut;  // channels of the map whose quadrants the Local Fourier Unit takes
  const P whole, quadrants;
  const int64_t channels, mixed;  // of h and of a mixed spectrum, filled up to whole blocks
  Norm<T, LANES> first_norm, unit_norm, local_norm;
  Packed<T> first, unit, local, last;

  TrainedNetwork(const TrainingJob<T>& job, bool backward, Pieces& pieces)
      : job(job),
        cut((job.C + 3) / 4),
        whole(job.C, job.C, job.H, job.W),
        quadrants(4 * cut, job.C, (job.H + 1) / 2, (job.W + 1) / 2),
        channels(LANES * P::of(job.C)),
        mixed(2 * channels),
        first_norm(channels, T(1), pieces),
        unit_norm(mixed, scale(whole), pieces),
        local_norm(mixed, scale(quadrants), pieces),
        first(packed(backward, !alone(), channels, job.C_in, pieces)),
        unit(packed(backward, true, mixed, 2 * LANES * whole.blocks, pieces)),
        local(packed(backward, has_local(), mixed, 2 * LANES * quadrants.blocks, pieces)),
        last(packed(backward, !alone(), job.C_out, channels, pieces)) {}

  bool alone() const { return !job.first.weight; }  // the Fourier Unit
  bool has_local() const { return job.local.weight; }
  int64_t pixels() const { return job.H * job.W; }
  // Values of one image in what a norm reads.
  int64_t unit_image() const { return whole.Wf * whole.H * mixed; }
  int64_t local_image() const { return quadrants.Wf * quadrants.H * mixed; }

  // Of a transform, there or back; the rows' spectra that a weight mixes are twice too large.
  static T scale(const P& planes) { return T(1 / std::sqrt(double(planes.H) * planes.W)); }

  // The gradient's product has the weight's columns for its depth.
  static Packed<T> packed(bool backward, bool needed, int64_t columns, int64_t depth, Pieces& pieces) {
    if (!needed) columns = depth = 0;
    if (backward) std::swap(columns, depth);
    return Packed<T>(columns, depth, pieces);
  }

  // The weights, and what is known of the norms.
  void pack(const Team& team, bool backward) {
    pack<InOrder>(team, backward, first, job.first.weight, job.C, job.C_in, T(1));
    pack<Spectral>(team, backward, unit, job.unit.weight, 2 * job.C, 2 * whole.C, scale(whole) / 2);
    pack<Spectral>(team, backward, local, job.local.weight, 2 * job.C, 2 * quadrants.C, scale(quadrants) / 2);
    pack<InOrder>(team, backward, last, job.last, job.C_out, job.C, T(1));
    if (backward && team.rank == 0) set_first(), set_units();
    team.wait();
  }

  // A weight of so many channels out and in, or nothing.
  template <typename Order>
  static void pack(const Team& team, bool backward, Packed<T>& to, const T* weight, int64_t out, int64_t in, T scale) {
    const auto column = [&](int64_t place) {
      const int64_t channel = Order::channel_at(place);
      return channel < out ? PackedColumn<T>{weight + channel * in, scale, 0} : PackedColumn<T>{};
    };
    team.each(to.panels(), [&](int64_t panel) {
      if ((backward ? out : in) < to.depth) to.clear(panel);
      backward ? pack_back<Order>(to, panel, weight, out, in, scale) : to.pack(panel, in, column, Order::place_of);
    });
  }

  // One panel of the product with a gradient: the weight's rows are the panel's.
  template <typename Order>
  static void pack_back(Packed<T>& to, int64_t panel, const T* weight, int64_t out, int64_t in, T scale) {
    constexpr int WIDTH = Packed<T>::WIDTH;
    T* values = to.panel(panel);
    int64_t from[WIDTH];
    for (int j = 0; j < WIDTH; ++j) from[j] = Order::channel_at(panel * WIDTH + j);
    for (int64_t row = 0; row < out; ++row, weight += in) {
      T* line = values + Order::place_of(row) * WIDTH;
      for (int j = 0; j < WIDTH; ++j) line[j] = from[j] < in ? weight[from[j]] * scale : T(0);
    }
  }

  // The norms from the layers' statistics.
  void set_first() const {
    if (!alone()) first_norm.template set<InOrder>(job.first, job.C);
  }
  void set_units() const {
    unit_norm.template set<Spectral>(job.unit, 2 * job.C);
    if (has_local()) local_norm.template set<Spectral>(job.local, 2 * job.C);
  }
};

// The planes of one image, and what the Local Fourier Unit adds, (h, w, channels) of a quadrant.
template <typename T, int LANES>
struct TrainedMaps {
  Planes<T, LANES> whole, quadrants;
  T* tiles;

  TrainedMaps(const TrainedNetwork<T, LANES>& network, Pieces& pieces)
      : whole(network.whole), quadrants(network.quadrants) {
    const bool local = network.has_local();
    whole.values = pieces.take<T>(whole.size());
    quadrants.values = pieces.take<T>(local ? quadrants.size() : 0);
    tiles = pieces.take<T>(local ? quadrants.H * quadrants.W * network.channels : 0);
  }
};

}  // namespace
