// A Spectral Transform in training, forward and backward. A norm needs all images before it can go on, so that
// each phase passes over them once; within a phase everything of an image stays in the core's cache.
//
// Only what the norms read is kept for the backward pass. Maps and spectra are computed again from it.

#pragma once

#include "training_passes.hpp"

namespace {

// All threads' own parts, and how they become one.
template <int LANES>
class Members {
 public:
  using Images = ImageTraining<LANES>;

  Members(int threads, Arena& arena) : images(arena.take<Images*>(threads)) {}

  void join(const Team& all, Images* own) const { images[all.rank] = own; }

  // The statistics of the batch, in the channels' own order.
  template <typename Order>
  void set_statistics(const Team& all, Moments<LANES> Images::*moments, const TrainedLayer& layer,
                      int64_t channels) const {
    if (!layer.by_batch) return;
    Moments<LANES>& sum = images[0]->*moments;
    for (int rank = 1; rank < all.size; ++rank) sum.add(images[rank]->*moments);
    for (int64_t c = 0; c < channels; ++c) {
      layer.mean[c] = float(sum.mean[Order::place_of(c)]);
      layer.var[c] = float(sum.squares[Order::place_of(c)] / sum.count);
    }
  }

  const GradientSums& sums(const Team& all, GradientSums Images::*of) const {
    GradientSums& sum = images[0]->*of;
    for (int rank = 1; rank < all.size; ++rank) sum.add(images[rank]->*of);
    return sum;
  }

  // A weight's gradient, of so many channels out and in. By blocks of rows, that follow each other in each panel.
  template <typename Order>
  void set_gradient(const Team& all, OuterSum Images::*of, float* to, int64_t out, int64_t in, float scale) const {
    constexpr int64_t WIDTH = OuterSum::WIDTH, BLOCK = 16;
    const int64_t rows = (images[0]->*of).rows, panels = (images[0]->*of).panels();
    all.each((rows + BLOCK - 1) / BLOCK, [&](int64_t block) {
      for (int64_t panel = 0; panel < panels; ++panel)
        for (int64_t place = block * BLOCK; place < std::min(rows, (block + 1) * BLOCK); ++place) {
          const int64_t row = Order::channel_at(place);
          if (row >= out) continue;
          float sum[WIDTH] = {};
          for (int rank = 0; rank < all.size; ++rank) {
            const float* from = (images[rank]->*of).row(panel, place);
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
  Images** const images;
};

// Calls `work(all, state, members, images, phase)` in all threads, with everything set up; `phase(of_image, then)`
// goes over the images, and then lets one thread do what needs all of them.
template <int LANES, typename Work>
void run_training(const TrainingJob& job, bool backward, Work work) {
  using State = TrainingState<LANES>;
  using Maps = TrainingMemory<LANES>;
  const int threads = most_threads();
  const int64_t own = job.N >= threads;
  Arena shared{nullptr}, of_thread{nullptr};
  const State counted(job, backward, shared);
  Maps(counted, 1, shared), Members<LANES>(threads, shared);
  ImageTraining<LANES>(counted, backward, of_thread), Maps(counted, own, of_thread);
  const Workspace workspace(shared.used, of_thread.used, threads);
  shared = workspace.shared();
  State state(job, backward, shared);
  const Maps team_maps(state, 1, shared);
  const Members<LANES> members(threads, shared);
#pragma omp parallel num_threads(threads)
  {
    const Team all{omp_get_thread_num(), omp_get_num_threads()};
    state.pack(all, backward);
    Arena arena = workspace.of_thread(all.rank);
    ImageTraining<LANES> images(state, backward, arena);
    const Maps maps(state, own, arena);
    members.join(all, &images);
    const int64_t shared_out = all.size == threads ? job.N / threads * threads : 0;
    bool turned = false;
    const auto phase = [&](auto of_image, auto then) {
      // Each way in turn: what the last images left is still in the cache.
      const auto turn = [&](int64_t n, const Maps& of, const Team& team) {
        of_image(turned && n < shared_out ? shared_out - all.size + 2 * all.rank - n : n, of, team);
      };
      over_images(job.N, threads, all, maps, team_maps, turn);
      turned = !turned;
      all.wait();
      if (all.rank == 0) then();
      all.wait();
    };
    work(all, state, members, images, phase);
    all.wait();  // for those who read this thread's sums
  }
}

template <int LANES>
void train_forward(const TrainingJob& job) {
  using Images = ImageTraining<LANES>;
  using Maps = TrainingMemory<LANES>;
  using Spectral = InPlanes<LANES>;
  run_training<LANES>(job, false, [&](const Team& all, auto& state, auto& members, Images& images, auto phase) {
    phase([&](int64_t n, const Maps&, const Team& team) { images.enter(n, team); }, [&] {
      if (state.is_fourier_unit()) return;
      members.template set_statistics<InOrder>(all, &Images::conv1_moments, job.conv1, job.C);
      state.set_conv1();
    });
    phase([&](int64_t n, const Maps& maps, const Team& team) { images.mix(n, maps, team); }, [&] {
      members.template set_statistics<Spectral>(all, &Images::fu_moments, job.fu, 2 * job.C);
      if (state.has_lfu())
        members.template set_statistics<Spectral>(all, &Images::lfu_moments, job.lfu, 2 * job.C);
      state.set_units();
    });
    phase([&](int64_t n, const Maps& maps, const Team& team) { images.leave(n, maps, team); }, [] {});
  });
}

template <int LANES>
void train_backward(const TrainingJob& job) {
  using Images = ImageTraining<LANES>;
  using Maps = TrainingMemory<LANES>;
  using Spectral = InPlanes<LANES>;
  run_training<LANES>(job, true, [&](const Team& all, auto& state, auto& members, Images& images, auto phase) {
    const auto &whole = state.whole, &quadrants = state.quadrants;
    const auto pixels = [&](const auto& planes) { return double(job.N * planes.Wf * planes.H); };
    phase([&](int64_t n, const Maps& maps, const Team& team) { images.leave_back(n, maps, team); }, [&] {
      state.fu_norm.template set_back<Spectral>(job.fu, 2 * job.C, members.sums(all, &Images::fu_sums),
                                                    pixels(whole));
      if (state.has_lfu())
        state.lfu_norm.template set_back<Spectral>(job.lfu, 2 * job.C, members.sums(all, &Images::lfu_sums),
                                                       pixels(quadrants));
    });
    phase([&](int64_t n, const Maps& maps, const Team& team) { images.mix_back(n, maps, team); }, [&] {
      if (state.is_fourier_unit()) return;
      state.conv1_norm.template set_back<InOrder>(job.conv1, job.C, members.sums(all, &Images::conv1_sums),
                                                    double(job.N * state.pixels()));
    });
    phase([&](int64_t n, const Maps&, const Team& team) { images.enter_back(n, team); }, [] {});
    members.template set_gradient<Spectral>(all, &Images::grad_fu, job.fu.grad_weight, 2 * job.C, 2 * job.C,
                                            state.scale(whole) / 2);
    if (state.has_lfu())
      members.template set_gradient<Spectral>(all, &Images::grad_lfu, job.lfu.grad_weight, 2 * job.C,
                                              2 * quadrants.C, state.scale(quadrants) / 2);
    if (state.is_fourier_unit()) return;
    members.template set_gradient<InOrder>(all, &Images::grad_conv1, job.conv1.grad_weight, job.C, job.C_in, 1.0f);
    members.template set_gradient<InOrder>(all, &Images::grad_conv2, job.grad_conv2, job.C_out, job.C, 1.0f);
  });
}

// Values a pixel of what bn1 reads; the units' norms read twice as many a coefficient.
inline int64_t saved_width(int64_t C) {
  return C > NARROW_LANES ? VECTOR_LANES * Planes<VECTOR_LANES>::of(C) : NARROW_LANES;
}

inline void run_training(const TrainingJob& job, bool backward) {
  if (job.C > NARROW_LANES)
    backward ? train_backward<VECTOR_LANES>(job) : train_forward<VECTOR_LANES>(job);
  else
    backward ? train_backward<NARROW_LANES>(job) : train_forward<NARROW_LANES>(job);
}

}  // namespace
