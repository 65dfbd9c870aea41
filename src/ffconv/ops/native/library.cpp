// What Python calls, for one type of real numbers: REAL is float or double.

#include "inference.hpp"
#include "training.hpp"
#include "transforms.hpp"
#include "weight_gradients.hpp"

constexpr int LANES = 64 / sizeof(REAL);

extern "C" {
int ffconv_largest_factor() { return LARGEST_FACTOR; }
int64_t ffconv_width(int64_t C) { return trained_width<REAL, LANES>(C); }
void ffconv_transform(const TransformJob<REAL>* job, int forward) { run_transform<REAL, LANES>(*job, forward); }
void ffconv_spectral_transform(const SpectralTransformJob<REAL>* job) { run_spectral_transform<REAL, LANES>(*job); }
void ffconv_convolution(const SpectralTransformJob<REAL>* job, const ConvolutionMaps<REAL>* maps) {
  run_convolution<REAL, LANES>(*job, *maps);
}
int64_t ffconv_packed_bytes(const SpectralTransformJob<REAL>* job) { return packed_bytes<REAL, LANES>(*job); }
int ffconv_pays_in_tiles(int64_t height, int64_t width, int64_t inputs, int64_t outputs, int64_t images) {
  return pays_in_tiles<REAL>(height, width, inputs, outputs, images);
}
void ffconv_weight_gradients(const WeightGradientsJob<REAL>* job) { run_weight_gradients(*job); }
void ffconv_train(const TrainingJob<REAL>* job, int backward) { run_trained<REAL, LANES>(*job, backward); }
}
