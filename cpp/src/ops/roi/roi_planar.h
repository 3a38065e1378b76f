// Means of regions whose bins read few channels each, over features as they lie: see RoiParams::planar.
#pragma once

#include "roi_kernels.h"

#include <vector>

namespace opsin {

void planar_means(const RoiParams& p, const std::vector<Roi<float>>& regions, const void* x, void* y);
void planar_means(const RoiParams& p, const std::vector<Roi<double>>& regions, const void* x, void* y);
/// Writes all of grad_x.
void planar_spread(const RoiParams& p, const std::vector<Roi<float>>& regions, const void* grad_y,
                   float* grad_x);
void planar_spread(const RoiParams& p, const std::vector<Roi<double>>& regions, const void* grad_y,
                   double* grad_x);

}  // namespace opsin
