// A Spectral Transform in training, forward and backward. A norm needs all images before it can go on, so that
// each phase passes over them once; within a phase everything of an image stays in the core's cache.
//
// Only what the norms read is kept for the backward pass. Maps and spectra are computed again from it.

#pragma once

#include "trained_images.hpp"

namespace {

// All threads' own parts, and how they become one.
template <typename T, int LANES>
class Members {
 public:
  using Images = TrainedImages<T, LANES>;

  Members() : images(omp_get_max_threads()) {}

  void join(const Team& all, Images* own) { images[all.rank] = own; }

  // The statistics of the batch, in the channels' own order.
  template <typename Order>
  void set_statistics(const Team& all, Moments<T, LANES> Images::*moments, const TrainedLayer<T>& layer,
                      int64_t channels) const {
    if (!layer.by_batch) return;
    Moments<T, LANES> sum = images[0]->*moments;
    for (int rank = 1; rank < all.size; ++rank) sum.add(images[rank]->*moments);
    for (int64_t c = 0; c < channels; ++c) {
      layer.mean[c] = T(sum.mean[Order::place_of(c)]);
      layer.var[c] = T(sum.squares[Order::place_of(c)] / sum.count);
    }
  }

  GradientSums sums(const Team& all, GradientSums Images::*of) const {
    GradientSums sum = images[0]->*of;
    for (int rank = 1; rank < all.size; ++rank) sum.add(images[rank]->*of);
    return sum;
  }

  // A weight's gradient, of so many channels out and in. By blocks of rows, that follow each other in each panel.
  template <typename Order>
  void set_gradient(const Team& all, OuterSum<T> Images::*of, T* to, int64_t out, int64_t in, T scale) const {
    constexpr int64_t WIDTH = OuterSum<T>::WIDTH, BLOCK = 16;
    const int64_t rows = (images[0]->*of).rows, panels = (images[0]->*of).panels();
    all.each((rows + BLOCK - 1) / BLOCK, [&](int64_t block) {
      for (int64_t panel = 0; panel < panels; ++panel)
        for (int64_t place = block * BLOCK; place < std::min(rows, (block + 1) * BLOCK); ++place) {
          const int64_t row = Order::channel_at(place);
          if (row >= out) continue;
          T sum[WIDTH] = {};
          for (int rank = 0; rank < all.size; ++rank) {
            const T* from = (images[rank]->*of).row(panel, place);
            for (int64_t j = 0; j < WIDTH; ++j) sum[j] += from[j];
          }
          for (int64_t j = 0; j < WIDTH; ++j) {
            const int64_t column = Order::channel_at(panel * WIDTH + j);
            if (column < in) to[row * in + column] = sum[j] * scale;
          }
        }
    });
  }

 private:
  std::vector<Images*> images;
};

// Calls `work(all, network, members, images, phase)` in all threads, with everything set up; `phase(of_image, then)`
// goes over the images, and then lets one thread do what needs all of them.
template <typename T, int LANES, typename Work>
void run_training(const TrainingJob<T>& job, bool backward, Work work) {
  using Network = TrainedNetwork<T, LANES>;
  using Maps = TrainedMaps<T, LANES>;
  static thread_local Scratch of_team, of_thread;
  Pieces counted{nullptr};
  Maps(Network(job, backward, counted), counted);
  Pieces shared{of_team.of(counted.used)};
  Network network(job, backward, shared);
  const Maps team_maps(network, shared);
  Members<T, LANES> members;
#pragma omp parallel
  {
    const Team all{omp_get_thread_num(), omp_get_num_threads()};
    network.pack(all, backward);
    Pieces needed{nullptr};
    TrainedImages<T, LANES>(network, backward, needed), Maps(network, needed);
    Pieces own{of_thread.of(needed.used)};
    TrainedImages<T, LANES> images(network, backward, own);
    const Maps maps(network, own);
    members.join(all, &images);
    const int64_t shared_out = job.N / all.size * all.size;
    bool turned = false;
    const auto phase = [&](auto of_image, auto then) {
      // Each way in turn: what the last images left is still in the cache.
      const auto turn = [&](int64_t n, const Maps& of, const Team& team) {
        of_image(turned && n < shared_out ? shared_out - all.size + 2 * all.rank - n : n, of, team);
      };
      over_images(job.N, all, maps, team_maps, turn);
      turned = !turned;
      all.wait();
      if (all.rank == 0) then();
      all.wait();
    };
    work(all, network, members, images, phase);
    all.wait();
    of_thread.shrink();
  }
  of_team.shrink();
}

template <typename T, int LANES>
void train_forward(const TrainingJob<T>& job) {
  using Images = TrainedImages<T, LANES>;
  using Maps = TrainedMaps<T, LANES>;
  using Spectral = InPlanes<T, LANES>;
  run_training<T, LANES>(job, false, [&](const Team& all, auto& network, auto& members, Images& images, auto phase) {
    phase([&](int64_t n, const Maps&, const Team& team) { images.enter(n, team); }, [&] {
      if (network.alone()) return;
      members.template set_statistics<InOrder>(all, &Images::first_moments, job.first, job.C);
      network.set_first();
    });
    phase([&](int64_t n, const Maps& maps, const Team& team) { images.mix(n, maps, team); }, [&] {
      members.template set_statistics<Spectral>(all, &Images::unit_moments, job.unit, 2 * job.C);
      if (network.has_local())
        members.template set_statistics<Spectral>(all, &Images::local_moments, job.local, 2 * job.C);
      network.set_units();
    });
    phase([&](int64_t n, const Maps& maps, const Team& team) { images.leave(n, maps, team); }, [] {});
  });
}

template <typename T, int LANES>
void train_backward(const TrainingJob<T>& job) {
  using Images = TrainedImages<T, LANES>;
  using Maps = TrainedMaps<T, LANES>;
  using Spectral = InPlanes<T, LANES>;
  run_training<T, LANES>(job, true, [&](const Team& all, auto& network, auto& members, Images& images, auto phase) {
    const auto &whole = network.whole, &quadrants = network.quadrants;
    const auto pixels = [&](const auto& planes) { return double(job.N * planes.Wf * planes.H); };
    phase([&](int64_t n, const Maps& maps, const Team& team) { images.leave_back(n, maps, team); }, [&] {
      network.unit_norm.template set_back<Spectral>(job.unit, 2 * job.C, members.sums(all, &Images::unit_sums),
                                                    pixels(whole));
      if (network.has_local())
        network.local_norm.template set_back<Spectral>(job.local, 2 * job.C, members.sums(all, &Images::local_sums),
                                                       pixels(quadrants));
    });
    phase([&](int64_t n, const Maps& maps, const Team& team) { images.mix_back(n, maps, team); }, [&] {
      if (network.alone()) return;
      network.first_norm.template set_back<InOrder>(job.first, job.C, members.sums(all, &Images::first_sums),
                                                    double(job.N * network.pixels()));
    });
    phase([&](int64_t n, const Maps&, const Team& team) { images.enter_back(n, team); }, [] {});
    members.template set_gradient<Spectral>(all, &Images::grad_unit, job.unit.grad_weight, 2 * job.C, 2 * job.C,
                                            network.scale(whole) / 2);
    if (network.has_local())
      members.template set_gradient<Spectral>(all, &Images::grad_local, job.local.grad_weight, 2 * job.C,
                                              2 * quadrants.C, network.scale(quadrants) / 2);
    if (network.alone()) return;
    members.template set_gradient<InOrder>(all, &Images::grad_first, job.first.grad_weight, job.C, job.C_in, T(1));
    members.template set_gradient<InOrder>(all, &Images::grad_last, job.grad_last, job.C_out, job.C, T(1));
  });
}

// Values a pixel of what bn1 reads; the units' norms read twice as many a coefficient.
template <typename T, int LANES>
int64_t trained_width(int64_t C) {
  return C > LANES / 2 ? LANES * Planes<T, LANES>::of(C) : LANES / 2;
}

template <typename T, int LANES>
void run_trained(const TrainingJob<T>& job, bool backward) {
  constexpr int FEW = LANES / 2;
  if (job.C > FEW)
    backward ? train_backward<T, LANES>(job) : train_forward<T, LANES>(job);
  else
    backward ? train_backward<T, FEW>(job) : train_forward<T, FEW>(job);
}

}  // namespace
