// The functions that Python calls. Each takes a block of arguments, and returns null or what is wrong.

#include "arguments.hpp"

extern "C" {
int64_t ffconv_largest_factor() { return LARGEST_FACTOR; }
int64_t ffconv_saved_width(int64_t channels) { return saved_width(channels); }
int64_t ffconv_winograd_pays(int64_t height, int64_t width, int64_t inputs, int64_t outputs, int64_t images) {
  return winograd_pays(height, width, inputs, outputs, images);
}
const char* ffconv_transform(const TransformArguments* of) {
  return guarded([of] { transform_map(*of); });
}
const char* ffconv_infer(const InferenceArguments* of) {
  return guarded([of] { infer(*of); });
}
const char* ffconv_train(const TrainingArguments* of) {
  return guarded([of] { train(*of); });
}
const char* ffconv_weight_gradients(const WeightGradientsArguments* of) {
  return guarded([of] { make_weight_gradients(*of); });
}
}
