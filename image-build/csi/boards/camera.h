/* SPDX-License-Identifier: GPL-2.0 */
/* A camera on a board: its clock, its supply, its bus, and the receiver's end of the cable. Enters:
 * SENSOR (a header), SUPPLY_PIN, CAMERA_BUS and RECEIVER. Labels are those of the kernel's trees. */
#include SENSOR

/dts-v1/;
/plugin/;

&{/} {
	camera_clock: clock-camera {
		compatible = "fixed-clock";
		#clock-cells = <0>;
		clock-frequency = <SENSOR_CLOCK_HZ>;
	};

	camera_supply: regulator-camera {
		compatible = "regulator-fixed";
		regulator-name = "camera";
		gpio = <SUPPLY_PIN>;
		enable-active-high;
	};
};

CAMERA_BUS {
	#address-cells = <1>;
	#size-cells = <0>;
	status = "okay";

	SENSOR_NODE;
};

RECEIVER {
	status = "okay";

	port {
		receiver_in: endpoint {
			remote-endpoint = <&camera_out>;
			bus-type = <4>; /* CSI-2, D-PHY */
			data-lanes = <1 2>;
			clock-noncontinuous;
		};
	};
};
